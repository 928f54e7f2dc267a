import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Acked, type CheckFaults, compareViews, NO_FAULTS, type StoredEntry, type View, type ViewItem } from './chat-checker.js';

type Row = { -readonly [field in keyof StoredEntry]: StoredEntry[field] };
type MutableView = Omit<{ -readonly [field in keyof View]: View[field] }, 'items'> & { items: ViewItem[] };

interface World {
  rows: Row[];
  readonly ann: MutableView;
  readonly bob: MutableView;
  readonly acked: Map<string, Acked>;
  readonly deleted: Set<string>;
  readonly log: string[];
}

const message = (offset: number, author: string): Row => ({
  slug: 'radio',
  offset,
  epoch: 1,
  type: 'msg',
  mid: `mid${offset}`,
  key: `key${offset}`,
  user: author,
  payload: JSON.stringify({ mid: `mid${offset}`, user: { id: author }, body: { text: `text ${offset}` } }),
});

const other = (offset: number, type: string, payload: object): Row => ({
  slug: 'radio',
  offset,
  epoch: 1,
  type,
  mid: null,
  key: null,
  user: null,
  payload: JSON.stringify(payload),
});

const itemOf = ({ offset, type, mid, payload }: Row): ViewItem => {
  const said = JSON.parse(payload!) as { body?: { text: string } };
  const isShown = type !== 'gone' && type !== 'del';
  return {
    offset,
    epoch: 1,
    type,
    mid: type === 'msg' ? mid! : undefined,
    body: said.body ?? { text: '' },
    visible: isShown,
    deleted: false,
    entry: { t: type, epoch: 1, offset, at: 1, ...(type !== 'gone' && said) },
  };
};

const struck = (item: ViewItem): ViewItem => ({ ...item, deleted: true, body: { text: '' } });

/**
 * A room of ten entries, in which all is well. Message 2 was deleted by 7, what Eve had said (4) by 8. Ann was there all the time and has seen both being
 * deleted; Bob came later and got `gone`.
 */
function world(): World {
  const said = [1, 2, 3, 4, 5, 6].map((offset) => message(offset, offset === 4 ? 'eve' : 'ann'));
  const later = [
    other(7, 'del', { offsets: [2], mids: ['mid2'], by: { id: 'mod' } }),
    other(8, 'del', { user: 'eve', upTo: 7, by: { id: 'mod' } }),
    other(9, 'act', { action: 'ban', user: { id: 'eve' } }),
    message(10, 'ann'),
  ];
  const erased = (row: Row): Row => ({ ...row, type: 'gone', key: null, user: null, payload: '{}' });
  const rows = [...said.map((row) => (row.offset === 2 || row.offset === 4 ? erased(row) : row)), ...later];
  const seen = [...said, ...later].map(itemOf).map((item) => (item.offset === 2 || item.offset === 4 ? struck(item) : item));
  return {
    rows,
    ann: { member: 'Ann', room: 'radio', items: seen, from: 1, told: [] },
    bob: { member: 'Bob', room: 'radio', items: rows.map(itemOf), from: 1, told: [] },
    acked: new Map([...said, message(10, 'ann')].map(({ mid, key, user }) => [mid!, { mid: mid!, key: key!, user: user! }])),
    deleted: new Set(['mid2']),
    log: rows.map(({ type, mid, payload }) => `1 ${type} ${mid ?? ''} ${payload}`),
  };
}

function found(spoil: (world: World) => void): CheckFaults & { told: number } {
  const it = world();
  spoil(it);
  const known = {
    acked: new Map([['radio', it.acked]]),
    deleted: new Map([['radio', it.deleted]]),
    log: new Map([['radio', it.log]]),
  };
  const { compared, ...faults } = compareViews([it.ann, it.bob], it.rows, known);
  assert.ok(compared >= 10, 'something was looked at');
  return faults;
}

const place = (items: readonly { offset: number }[], offset: number) => items.findIndex((item) => item.offset === offset);
const remove = (items: { offset: number }[], offset: number) => items.splice(place(items, offset), 1);
const change = <T extends { offset: number }>(items: T[], offset: number, changes: Partial<T>) => {
  items[place(items, offset)] = { ...items[place(items, offset)]!, ...changes };
};

const FAULTS: [what: string, spoil: (world: World) => void, expected: Partial<CheckFaults>][] = [
  ['nothing', () => {}, {}],
  [
    'a hole that the member was not told of',
    ({ bob }) => remove(bob.items, 3),
    { undetectedGaps: ['Bob radio 3'], lost: ['Bob radio key3'] },
  ],
  ['a hole where no message was', ({ bob }) => remove(bob.items, 9), { undetectedGaps: ['Bob radio 9'] }],
  ['the end of the room is missing', ({ bob }) => remove(bob.items, 10), { undetectedGaps: ['Bob radio 10'], lost: ['Bob radio key10'] }],
  [
    'a member who has nothing at all',
    ({ bob, acked }) => {
      bob.items = [];
      acked.clear();
    },
    { undetectedGaps: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((offset) => `Bob radio ${offset}`) },
  ],
  [
    'somebody who was put out lacks what was before',
    ({ bob }) => {
      bob.items.splice(5);
      remove(bob.items, 3);
      bob.to = 5;
    },
    { undetectedGaps: ['Bob radio 3'], lost: ['Bob radio key3'] },
  ],
  [
    'a hole in the store',
    ({ rows, ann, bob }) => {
      for (const list of [rows, ann.items, bob.items]) remove(list, 9);
    },
    {
      holesInStore: ['radio 9'],
      undetectedGaps: ['Ann radio 9', 'Bob radio 9'],
    },
  ],
  [
    'a message that is shown twice',
    ({ bob, rows }) => {
      change(rows, 9, { type: 'gone', payload: '{}' });
      change(bob.items, 9, { ...bob.items[4]!, offset: 9 });
    },
    {
      duplicates: ['Bob radio mid5'],
      different: ['Ann radio 9: act undefined, stored gone null', 'Bob radio 9: msg mid5, stored gone null'],
    },
  ],
  [
    'one key of one author that is stored twice',
    ({ rows }) => change(rows, 6, { key: 'key5' }),
    { duplicates: ['store radio ann key5 2 times'] },
  ],
  ['two rows of one offset', ({ rows }) => rows.push({ ...message(10, 'ann') }), { duplicates: ['store radio 10'] }],
  [
    'two members who have two messages in another order',
    ({ bob }) => {
      const [five, six] = [bob.items[4]!, bob.items[5]!];
      bob.items[4] = { ...six, offset: 5 };
      bob.items[5] = { ...five, offset: 6 };
    },
    { different: ['Bob radio 5: msg mid6, stored msg mid5', 'Bob radio 6: msg mid5, stored msg mid6'] },
  ],
  [
    'the same entries, shown in another order',
    ({ bob }) => bob.items.splice(4, 2, bob.items[5]!, bob.items[4]!),
    { outOfOrder: ['Bob radio 5 after 6'] },
  ],
  [
    'a key that was acknowledged and is not stored',
    ({ acked }) => acked.set('mid77', { mid: 'mid77', key: 'key77', user: 'ann' }),
    { lost: ['store radio key77'] },
  ],
  [
    'a message that was acknowledged and is erased though nobody has deleted it',
    ({ rows, ann, bob }) => {
      change(rows, 6, { type: 'gone', key: null, user: null, payload: '{}' });
      for (const { items } of [ann, bob]) change(items, 6, { type: 'gone', mid: undefined, visible: false });
    },
    { lost: ['store radio key6'], notDeleted: ['log radio mid6'] },
  ],
  [
    'another text than is stored',
    ({ bob }) => change(bob.items, 5, { body: { text: 'other' } }),
    {
      different: ['Bob radio 5: msg mid5, stored msg mid5'],
    },
  ],
  [
    'a message that is deleted for one member only',
    ({ bob }) => change(bob.items, 5, struck(bob.items[4]!)),
    { different: ['Bob radio 5: msg mid5, stored msg mid5'] },
  ],
  [
    'another act than is stored',
    ({ bob }) => change(bob.items, 9, { entry: { t: 'act', epoch: 1, offset: 9, at: 1, action: 'unban', user: { id: 'eve' } } }),
    { different: ['Bob radio 9: act undefined, stored act null'] },
  ],
  [
    'a reset that was not followed: others have got the place',
    ({ rows, ann, bob, acked }) => {
      change(rows, 10, { ...message(10, 'eve'), epoch: 2, mid: 'mid11', key: 'key11' });
      change(ann.items, 10, { ...itemOf(rows[9]!), epoch: 2 });
      acked.delete('mid10');
      assert.equal(bob.items[9]!.mid, 'mid10');
    },
    { notWithdrawn: ['Bob radio 10: msg mid10, stored msg mid11'] },
  ],
  [
    'a reset that was not followed: nobody has got the place',
    ({ rows, ann, acked }) => {
      remove(rows, 10);
      remove(ann.items, 10);
      acked.delete('mid10');
    },
    { notWithdrawn: ['Bob radio 10: msg mid10'] },
  ],
  [
    'a deleted message that a member shows',
    ({ bob }) => change(bob.items, 2, itemOf(message(2, 'ann'))),
    { notDeleted: ['Bob radio mid2'], different: ['Bob radio 2: msg mid2, stored gone mid2'] },
  ],
  [
    'a deleted message whose text a member still holds',
    ({ ann }) => change(ann.items, 2, { body: { text: 'text 2' } }),
    { notDeleted: ['Ann radio mid2'] },
  ],
  [
    'a deleted message that is stored',
    ({ rows }) => change(rows, 2, message(2, 'ann')),
    {
      notDeleted: ['store radio 2 mid2'],
      lost: ['Bob radio key2'],
      different: ['Ann radio 2: msg mid2, stored msg mid2', 'Bob radio 2: gone undefined, stored msg mid2'],
    },
  ],
  [
    'a message of somebody all of whose messages were deleted',
    ({ rows, bob }) => {
      change(rows, 4, message(4, 'eve'));
      change(bob.items, 4, itemOf(message(4, 'eve')));
    },
    {
      notDeleted: ['store radio 4 mid4', 'Bob radio mid4'],
      different: ['Ann radio 4: msg mid4, stored msg mid4'],
    },
  ],
  [
    'a message whose deletion was answered, though no entry says so',
    ({ deleted }) => deleted.add('mid5'),
    { notDeleted: ['store radio 5 mid5', 'log radio mid5', 'Ann radio mid5', 'Bob radio mid5'] },
  ],
  [
    'a deleted message that the log still has',
    ({ log }) => log.push('1 msg mid4:key4 {"mid":"mid4","body":{}}'),
    {
      notDeleted: ['log radio mid4'],
    },
  ],
];

for (const [what, spoil, expected] of FAULTS) {
  test(`the checker reports ${what}, and nothing else`, () => {
    const { told, ...faults } = found(spoil);
    assert.deepEqual(faults, { ...NO_FAULTS, ...expected });
    assert.equal(told, 0);
  });
}

test('what a member was told is missing is no fault, and is counted', () => {
  const { told, ...faults } = found(({ bob }) => {
    remove(bob.items, 3);
    bob.told = [[2, 3]];
  });
  assert.deepEqual(faults, NO_FAULTS);
  assert.equal(told, 1);
});
