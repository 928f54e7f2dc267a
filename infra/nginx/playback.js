// Checks playback links in nginx: whether what is asked for may be had with the token in its address or cookie, without asking Veza. For njs 0.7.9
// (Debian 12: libnginx-mod-http-js) and later; see veza-signed.conf. Tokens are described in src/access/playback-token.ts.

// biome-ignore lint/style/useNodejsImportProtocol: these are njs's own modules, which have no other name
import crypto from 'crypto';
// biome-ignore lint/style/useNodejsImportProtocol: as above
import fs from 'fs';

const TOKEN = /^([a-z0-9]{4,12})\.([1-9a-z][0-9a-z]{0,7})\.([A-Za-z0-9_-]{1,32})(?:\.(a|c|ac))?\.([A-Za-z0-9_-]{43})$/;
const GOOD = '';

// Read at every check (a page of memory), so that new keys count at once. Undefined: none.
function secretOf(r, keyId) {
  let keys;
  try {
    keys = JSON.parse(fs.readFileSync(r.variables.veza_keys_file, 'utf8')).keys;
  } catch (e) {
    r.error(`veza: the playback keys cannot be read: ${e.message}`);
    return undefined;
  }
  return Object.keys(keys).indexOf(keyId) < 0 ? undefined : Buffer.from(keys[keyId], 'base64url');
}

// In a time that says nothing about where they differ; njs has no function for it.
function isEqual(a, b) {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return difference === 0;
}

// An IPv4 address whole, of an IPv6 address the first 64 bits.
function boundAddress(r) {
  const bytes = Buffer.from(r.rawVariables.binary_remote_addr);
  if (bytes.length === 4) return bytes.toString('hex');
  const hex = bytes.toString('hex');
  return hex.slice(0, 24) === '00000000000000000000ffff' ? hex.slice(24) : hex.slice(0, 16);
}

// Empty: it may be had. Otherwise why not.
function reason(r, text, kind, name) {
  const found = text ? TOKEN.exec(text) : null;
  if (!found) return 'this link is not good for this address; ask for a new one where you got it';
  const secret = secretOf(r, found[1]);
  const binds = found[4] || '';
  const address = binds.indexOf('a') < 0 ? '' : boundAddress(r);
  const country = binds.indexOf('c') < 0 ? '' : String(r.variables.veza_country || '?').toUpperCase();
  const signed = ['veza-playback-1', found[1], found[2], found[3], `${kind}/${name}`, address, country].join('\n');
  if (secret === undefined || !isEqual(crypto.createHmac('sha256', secret).update(signed).digest('base64url'), found[5]))
    return 'this link is not good for this address; ask for a new one where you got it';
  if (parseInt(found[2], 36) * 1000 <= Date.now()) return 'this link has expired; ask for a new one where you got it';
  return GOOD;
}

// For `/t/{token}/…`: empty, or the problem document that refuses it.
function refusal(r) {
  const v = r.variables;
  const listened = v.veza_listened;
  const detail = reason(r, v.veza_token, listened ? 'live' : v.veza_kind, listened || v.veza_name);
  if (detail === GOOD) return '';
  return JSON.stringify({ type: 'about:blank', title: 'Forbidden', status: 403, code: 'forbidden', detail: detail });
}

// For an address without a token: `good` when the cookie for it is. Anything else is Veza's to decide.
function cookie(r) {
  const kind = r.variables.veza_kind;
  const name = r.variables.veza_name;
  const text = r.variables[`cookie_veza_play_${kind}_${name}`];
  return text && reason(r, text, kind, name) === GOOD ? 'good' : '';
}

export default { refusal, cookie };
