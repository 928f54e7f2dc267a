/**
 * Offers that are typical of scams in chats: English, matched in the folded text. The rules add to
 * the spam classifier, whose corpus is older than these offers.
 */
const OFFERS =
  /\b(?:buy|get|want|need|cheap|best|more|free) (?:cheap |real |more |some |free )?(?:followers|viewers|views|subs|subscribers|streams|likes|listeners|chatters|plays)\b|\bfree (?:nitro|robux|v-?bucks|gift ?cards?|iphone|bitcoin|btc|eth|crypto|money|steam)\b|\b(?:bitcoin|btc|eth|crypto|nft|usdt|token) (?:giveaway|airdrop|doubler|investment)\b|\b(?:claim|collect) (?:your|ur) (?:free |crypto )?(?:prize|reward|gift|airdrop|tokens|bonus)\b|\b(?:dm|message|text|whatsapp|telegram|add) me (?:to|on|for|and) (?:earn|learn|get|make|invest|trade|whatsapp|telegram|promo|promotion)\b|\b(?:earn|make|earned|made) (?:up to )?[$£€]?\d[\d,.]{0,9}k? ?(?:[$£€]|usd|dollars|euros)? ?(?:a|per|every|each|in a) (?:day|week|hour|month)\b|\bwork from home and earn\b|\bhot (?:girls|singles|women)\b.{0,40}\b(?:near you|waiting|in your area|click|profile)\b|\bcheck (?:out )?my (?:onlyfans|bio|profile) for (?:nudes|free|hot|more)\b|\b(?:online )?casino bonus\b|\b(?:promote|boost) your (?:channel|stream|music|track|song|spotify)\b/;
/** Phrases that are a scam only beside a link to a host that the room does not allow. */
const WITH_LINK =
  /\b(?:claim|giveaway|airdrop|nitro|followers|viewers|prize|winner|bonus|casino|betting|nudes|onlyfans|viagra|loan|forex|investment|click here|limited offer|% off|discount code)\b|% off\b/;

/**
 * The units at the start of a text that are searched: an offer that is meant to be read stands
 * there.
 */
const LOOKED_AT = 1000;

export function looksLikeScam(foldedText: string, hasUnknownLink: boolean): boolean {
  const text = foldedText.slice(0, LOOKED_AT);
  return OFFERS.test(text) || (hasUnknownLink && WITH_LINK.test(text));
}
