import { DataSet, englishDataset, type LiteralNode, type Node, type ParsedPattern, parseRawPattern, SyntaxKind } from 'obscenity';

/**
 * The built-in English word list. The list, the allow-list and the pattern syntax (`|` = edge of a
 * word, `[x]` = optional, `?` = any character) come from the library. The changes below are for
 * rooms about music, and for names and words of other languages that the library's list mistakes
 * for English ones.
 *
 * Patterns are matched against the text as `read` (readings.ts) returns it: repeated letters are
 * one, except b, e, g, l, o and s, of which two may stay.
 */
export type Category = 'profanity' | 'sexual' | 'slur' | 'hate' | 'harassment';
const CATEGORIES: readonly Category[] = ['slur', 'hate', 'harassment', 'sexual', 'profanity'];

const LIBRARY_CATEGORIES: Readonly<Record<string, Category>> = {
  africoon: 'slur',
  arabush: 'slur',
  chingchong: 'slur',
  nigger: 'slur',
  retard: 'slur',
  spastic: 'slur',
  tranny: 'slur',
  bestiality: 'sexual',
  blowjob: 'sexual',
  deepthroat: 'sexual',
  dildo: 'sexual',
  'double penetration': 'sexual',
  ejaculate: 'sexual',
  felch: 'sexual',
  fellatio: 'sexual',
  'finger bang': 'sexual',
  fisting: 'sexual',
  gangbang: 'sexual',
  handjob: 'sexual',
  hentai: 'sexual',
  lubejob: 'sexual',
  masturbate: 'sexual',
};

interface Phrase {
  readonly category: Category;
  readonly patterns: readonly string[];
  readonly allowed?: readonly string[];
}

/**
 * Replaces the library's entry of the same name. Undefined removes it: in many rooms the word is
 * not an offence by itself.
 */
const INSTEAD: Readonly<Record<string, Phrase | undefined>> = {
  abo: undefined,
  abeed: undefined,
  bollocks: undefined,
  boonga: undefined,
  doggystyle: undefined,
  dyke: undefined,
  hooker: undefined,
  incest: undefined,
  negro: undefined,
  scat: undefined,
  semen: undefined,
  sex: undefined,
  vagina: undefined,
  anal: { category: 'sexual', patterns: ['|anal|'] },
  anus: { category: 'sexual', patterns: ['|anus|'] },
  arse: { category: 'profanity', patterns: ['|arse|', '|arses|', '|arsehole'] },
  ass: {
    category: 'profanity',
    patterns: [
      '|ass|',
      '|asses|',
      '|asshole',
      'a**hole',
      'assh*le',
      '|asshat',
      '|asswipe',
      '|assfuck',
      '|assclown',
      '|asslick',
      'dumbass|',
      'fatass|',
    ],
  },
  bestiality: { category: 'sexual', patterns: ['|bestiality|'] },
  bitch: { category: 'profanity', patterns: ['bitch', 'b*tch', '|biatch', '|bich|', '|biches|'], allowed: ['bitches brew'] },
  boob: { category: 'sexual', patterns: ['|boob|', '|boobs|', '|boobies|'] },
  chink: { category: 'slur', patterns: ['|chink|', '|chinks|'], allowed: ['chink in', 'chinks in', 'chink of'] },
  cock: {
    category: 'sexual',
    patterns: ['|cock|', '|cocks|', '|cocksuck', '|cockhead', '|cocke[e]|'],
    allowed: ['cock robin', 'cock and bull', 'cock a doodle', 'the cock tavern', 'cock-a-doodle', 'cock sparrer'],
  },
  cuck: { category: 'profanity', patterns: ['|cuck|', '|cucks|', '|cuckold|', '|cucked|'] },
  cum: {
    category: 'sexual',
    patterns: ['|cum|', '|cums|', '|cuming|', '|cumshot', '|cumslut', '|cumdump'],
    allowed: ['cum laude', 'cum on feel', 'cum grano'],
  },
  cunt: { category: 'profanity', patterns: ['|cunt', 'cunt|', 'c*nt', 'cunts|'] },
  dick: {
    category: 'profanity',
    patterns: [
      '|dickhead',
      '|dickwad',
      '|dickface',
      '|dickish|',
      '|dickpic',
      '|dicks|',
      '|dick pic',
      '|dick head',
      '|my dick|',
      '|your dick|',
      '|ur dick|',
      '|his dick|',
      '|big dick|',
      '|small dick|',
      '|tiny dick|',
      'suck dick|',
      'a dick|',
      'such a dick',
      '|dckhead',
    ],
    allowed: ['a dick dale', 'a dick clark', 'a dick van', 'a dick tracy', 'a dick turpin', "dick's"],
  },
  fag: { category: 'slur', patterns: ['|fag|', '|fags|', '|fagot|', '|fagots|', '|faggot', '|faggy|', 'fggot', 'fag*ot'] },
  fuck: {
    category: 'profanity',
    patterns: [
      'f[?]ck',
      '|fking|',
      '|fkin|',
      '|fkn|',
      '|fked|',
      '|fuk|',
      '|fuks|',
      '|fukin',
      '|fuked|',
      '|fuker',
      '|fukof',
      '|fuq|',
      '|fuc|',
      '|phuck',
      '|phuk|',
      '|phuking',
      '|mofo|',
      '|motherfu',
      '|muthafu',
      '|stfu|',
      '|gtfo|',
      '|fu ck',
      '|f uck',
      '|fuc k',
      '|f u ck|',
      'f**k',
    ],
    allowed: ['fick', 'focke', 'feckless', 'fack ju'],
  },
  buttplug: { category: 'sexual', patterns: ['butplug'] },
  'jerk off': { category: 'sexual', patterns: ['|jerkof|', '|jerkingof|'] },
  jizz: { category: 'sexual', patterns: ['|jiz|', '|jizm'] },
  kike: { category: 'slur', patterns: ['|kike|', '|kikes|'] },
  orgasm: { category: 'sexual', patterns: ['|orgasm|', '|orgasms|'] },
  orgy: { category: 'sexual', patterns: ['|orgy|', '|orgies|'] },
  penis: { category: 'sexual', patterns: ['|penis|', '|penises|', '|pnis|'] },
  piss: { category: 'profanity', patterns: ['|piss|', '|pissing|', '|pissof|', '|pisshead'] },
  porn: { category: 'sexual', patterns: ['|porn|', '|porno|', '|pornhub', '|porns|', '|pr0n|'], allowed: ['new pornographers'] },
  prick: {
    category: 'profanity',
    patterns: ['|prick|', '|pricks|'],
    allowed: ['prick up', 'prick my', 'pin prick', 'prick of', 'prick your'],
  },
  pussy: {
    category: 'sexual',
    patterns: ['|p[u]ssy|', '|pussies|', 'p*ssy', '|pussi|'],
    allowed: ['pussy riot', 'pussycat', 'pussy cat', 'pussy willow', 'octopussy', 'pussy galore'],
  },
  rape: { category: 'harassment', patterns: ['|rape|', '|raped|', '|rapes|', '|rapist'], allowed: ['rape seed', 'rape oil'] },
  retard: {
    category: 'slur',
    patterns: ['|retard|', '|retards|', '|retarded|', '|libtard', '|fucktard'],
    allowed: [
      'en retard',
      'du retard',
      'le retard',
      'de retard',
      'un retard',
      'ce retard',
      'retard de',
      'retard du',
      'fire retard',
      'flame retard',
    ],
  },
  shit: {
    category: 'profanity',
    patterns: ['|shit', 'shit|', 'bullshit', 'shithead', 'shithole', '|shi t|', '|sht|', '|shyt|', '|shiz|', '|sheit|', 'sh*t', '|shi+'],
    allowed: ['shitake', 'shiitake', 'shittah', 'shittim', 's hit', 'sh it'],
  },
  slut: {
    category: 'sexual',
    patterns: ['|slut', '|sslut', '|siut|', 'sluts|'],
    allowed: ['till slut', 'slut pa', 'ar slut', 'ta slut', 'slutet', 'sluta', 'slutar', 'sluts ki'],
  },
  tit: {
    category: 'sexual',
    patterns: ['|tits|', '|tity|', '|tities|', '|titie|', '|tidies|', '|bigtits'],
    allowed: ['blue tits', 'great tits', 'coal tits', 'tailed tits', 'willow tits', 'the tidies'],
  },
  turd: { category: 'profanity', patterns: ['|turd|', '|turds|'] },
  twat: { category: 'profanity', patterns: ['|twat|', '|twats|', '|twaty|'] },
  wank: { category: 'profanity', patterns: ['|wank|', '|wanks|', '|wanker', '|wanking', '|wanked', '|wankstain'] },
  whore: { category: 'sexual', patterns: ['|whore|', '|whores|', '|whoore|', 'wh*re', '|whoring|', '|hoe bag'] },
};

const MORE: readonly Phrase[] = [
  {
    category: 'slur',
    patterns: [
      '|gook|',
      '|gooks|',
      '|wetback',
      '|beaner|',
      '|beaners|',
      '|raghead',
      '|towelhead',
      '|jigaboo',
      '|shemale',
      '|gypo|',
      '|spic|',
      '|spics|',
      '|paki|',
      '|pakis|',
    ],
  },
  {
    category: 'slur',
    patterns: ['|ni gger', '|nig ger', '|n igger', '|nigg er', '|ni gga', '|nlgger', '|nlgga', '|nigr|'],
  },
  {
    category: 'harassment',
    patterns: [
      '|kys|',
      '|kill yourself|',
      '|kill urself|',
      '|kill ur self|',
      '|go kill your',
      '|hang yourself|',
      '|neck yourself|',
      '|hope you die|',
      '|hope u die|',
      '|go die|',
      '|drink bleach|',
    ],
    allowed: ['hang yourself up'],
  },
  {
    category: 'hate',
    patterns: [
      '|heil hitler',
      '|sieg heil',
      '|gas the jews',
      '|kill all jews',
      '|kill al jews',
      '|white power|',
      '|race war now',
      '|hitler was right',
    ],
  },
  {
    category: 'profanity',
    patterns: ['|bi tch', '|b itch|', '|bit ch|', '|btch', '|cu nt|', '|c unt', '|cun t|', '|cnt|', '|bellend|'],
    allowed: ['vitamin b itch'],
  },
];

/**
 * Longer words and names that contain a listed word. They are added to the library's own
 * allow-list.
 */
const ALLOWED: readonly string[] = [
  'mishit',
  'spic and span',
  'scunthorpe',
  'penistone',
  'clitheroe',
  'shitterton',
  'shital',
  'niggard',
  'fagott',
  'dickinson',
  'dickens',
];

interface Metadata {
  readonly originalWord: string;
}

/**
 * Builds the data set that the lexicon is compiled from. A test runs the library's own matcher over
 * the same data set and compares.
 */
export function buildDataSet(): DataSet<Metadata> {
  const set = new DataSet<Metadata>().addAll(englishDataset as unknown as DataSet<Metadata>);
  set.removePhrasesIf(({ metadata }) => metadata !== undefined && metadata.originalWord in INSTEAD);
  const add = (word: string, { patterns, allowed = [] }: Phrase) =>
    set.addPhrase((phrase) => {
      let built = phrase.setMetadata({ originalWord: word });
      for (const source of patterns) built = built.addPattern(parseRawPattern(source));
      for (const term of allowed) built = built.addWhitelistedTerm(term);
      return built;
    });
  for (const [word, phrase] of Object.entries(INSTEAD)) if (phrase) add(word, phrase);
  MORE.forEach((phrase, index) => {
    add(`more ${index}`, phrase);
  });
  add('allowed', { category: 'profanity', patterns: [], allowed: ALLOWED });
  return set;
}

function categoryOf(word: string): Category {
  const more = /^more (\d+)$/.exec(word);
  if (more) return MORE[Number(more[1])]!.category;
  return INSTEAD[word]?.category ?? LIBRARY_CATEGORIES[word] ?? 'profanity';
}

const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

function sourceOfNode(node: Node): string {
  if (node.kind === SyntaxKind.Literal) return escaped(String.fromCodePoint(...(node as LiteralNode).chars));
  if (node.kind === SyntaxKind.Optional) return `(?:${sourceOfNode(node.childNode)})?`;
  return '.';
}

function sourceOf({ requireWordBoundaryAtStart, requireWordBoundaryAtEnd, nodes }: ParsedPattern): string {
  return (requireWordBoundaryAtStart ? '\\b' : '') + nodes.map(sourceOfNode).join('') + (requireWordBoundaryAtEnd ? '\\b' : '');
}

/**
 * The longest source comes first. If an allowed term contains the longest match at a place, it
 * contains the shorter ones there too.
 */
const oneOf = (sources: readonly string[]) => [...sources].sort((a, b) => b.length - a.length).join('|');

export interface Found {
  /** The place in the searched text. `end` is exclusive. */
  readonly start: number;
  readonly end: number;
}

/**
 * All patterns in one regular expression without a quantifier except `?`, so that a text is scanned
 * once. The library's matcher scans it once per pattern and looks each match up in all allowed
 * terms: 1.9 ms for 8,192 characters, 3.7 ms with many allowed terms. This class takes 0.1 ms.
 */
export class Lexicon {
  readonly #blocked: RegExp;
  readonly #allowed: RegExp;
  readonly #categories: readonly (readonly [Category, RegExp])[];

  constructor(set: DataSet<Metadata> = buildDataSet()) {
    const { blacklistedTerms, whitelistedTerms = [] } = set.build();
    const sources = new Map<Category, string[]>(CATEGORIES.map((category) => [category, []]));
    for (const { id, pattern } of blacklistedTerms) {
      const { phraseMetadata } = set.getPayloadWithPhraseMetadata({ termId: id, startIndex: 0, endIndex: 0, matchLength: 0 });
      sources.get(categoryOf(phraseMetadata?.originalWord ?? ''))!.push(sourceOf(pattern));
    }
    this.#blocked = new RegExp(oneOf([...sources.values()].flat()), 'gs');
    this.#categories = [...sources].map(([category, list]) => [category, new RegExp(oneOf(list), 'sy')] as const);
    this.#allowed = new RegExp(oneOf(whitelistedTerms.map(escaped)), 'g');
  }

  /**
   * Calls `visit` for each match, in order. After `allowed` the next match may begin inside this
   * one. After `enough` the search ends.
   */
  search(text: string, visit: (found: Found) => 'taken' | 'allowed' | 'enough'): void {
    const blocked = this.#blocked;
    blocked.lastIndex = 0;
    for (let match = blocked.exec(text); match !== null; match = blocked.exec(text)) {
      const said = visit({ start: match.index, end: blocked.lastIndex });
      if (said === 'enough') return;
      if (said === 'allowed') blocked.lastIndex = match.index + 1;
    }
  }

  categoryAt(text: string, start: number): Category {
    for (const [category, expression] of this.#categories) {
      expression.lastIndex = start;
      if (expression.test(text)) return category;
    }
    return 'profanity';
  }

  /** The places of allowed terms in the text. They may overlap. */
  allowedIn(text: string): Found[] {
    const found: Found[] = [];
    const allowed = this.#allowed;
    allowed.lastIndex = 0;
    for (let match = allowed.exec(text); match !== null; match = allowed.exec(text)) {
      found.push({ start: match.index, end: allowed.lastIndex });
      // The next allowed term may overlap this one.
      allowed.lastIndex = match.index + 1;
    }
    return found;
  }
}
