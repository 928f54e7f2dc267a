import { createHmac } from 'node:crypto';

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Tokens of the gateway, good for an hour, for a service that has `JWT_SECRET` and `JWT_AUDIENCE` of `test`. */
export function gatewayTokens(secret: string): (name: string) => string {
  return (name) => {
    const claims = { iss: 'gateway', aud: 'test', sub: name, name, role: 'listener', exp: Math.floor(Date.now() / 1000) + 3600 };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };
}
