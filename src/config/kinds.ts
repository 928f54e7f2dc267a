import { z } from 'zod';
import { OutboundPolicy } from '../backing/outbound-address.js';

/** A kind of value: how the text of a variable is checked and parsed. */
export interface ValueKind<T> {
  readonly schema: z.ZodType<T, string>;
  /** The end of the error line "NAME is …; allowed: …". */
  readonly allowed: string;
}

export const integer = (min: number, max: number): ValueKind<number> => ({
  schema: z
    .string()
    .regex(/^\d{1,15}$/)
    .transform(Number)
    .pipe(z.number().min(min).max(max)),
  allowed: `a whole number from ${min} to ${max}`,
});
export const port = integer(0, 65_535);
export const text = (maxLength = 1024): ValueKind<string> => ({
  schema: z.string().max(maxLength),
  allowed: `text of at most ${maxLength} characters`,
});
export const flag: ValueKind<boolean> = {
  schema: z.enum(['true', 'false']).transform((value) => value === 'true'),
  allowed: 'true or false',
};
export const oneOf = <const T extends readonly [string, ...string[]]>(...values: T): ValueKind<T[number]> => ({
  schema: z.enum(values) as unknown as z.ZodType<T[number], string>,
  allowed: `one of ${values.join(', ')}`,
});
export const someOf = <const T extends readonly [string, ...string[]]>(...values: T): ValueKind<readonly T[number][]> => ({
  schema: z
    .string()
    .transform((value) => [...new Set(value.split(',').map((part) => part.trim()))])
    .pipe(z.array(z.enum(values)).min(1)) as unknown as z.ZodType<readonly T[number][], string>,
  allowed: `a comma-separated list of ${values.join(', ')}`,
});
export const address = (...protocols: string[]): ValueKind<string> => ({
  schema: z.string().refine((value) => URL.canParse(value) && protocols.includes(new URL(value).protocol.slice(0, -1))),
  allowed: `an address that starts with ${protocols.map((protocol) => `${protocol}://`).join(' or ')}`,
});
export const addresses = (...protocols: string[]): ValueKind<string> => ({
  schema: z.string().refine((value) => value.split(',').every((part) => address(...protocols).schema.safeParse(part.trim()).success)),
  allowed: `${address(...protocols).allowed}, or several, separated by commas`,
});
/** An address without a slash at its end, so that paths can be appended to it. */
export const webAddress: ValueKind<string> = {
  schema: address('http', 'https').schema.transform((value) => value.replace(/\/+$/, '')) as unknown as z.ZodType<string, string>,
  allowed: 'an address that starts with http:// or https://',
};
export const headerName: ValueKind<string> = {
  schema: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,64}$/)
    .transform((value) => value.toLowerCase()),
  allowed: 'the name of a header',
};
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30 };
export const size = (maxBytes: number): ValueKind<number> => ({
  schema: z
    .string()
    .regex(/^\d{1,15}(?:[KMG]?i?B)?$/i)
    .transform((value) => Number.parseInt(value, 10) * (SIZE_UNITS[value.replace(/^\d+/, '').toUpperCase()] ?? 1))
    .pipe(z.number().min(1).max(maxBytes)),
  allowed: `a size from 1B to ${maxBytes / 1e9}GB, such as 500KB, 200MB or 1GiB`,
});
export const hops: ValueKind<number> = {
  schema: z
    .string()
    .regex(/^(?:true|false|\d{1,2})$/)
    .transform((value) => (value === 'false' ? 0 : value === 'true' ? 1 : Number(value))),
  allowed: 'false, true (one proxy) or the number of proxies, 0 to 99',
};
export const origins: ValueKind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(z.union([z.literal('*'), z.string().regex(/^https?:\/\/[^/,\s]+$/)])).max(200)),
  allowed: '* or a comma-separated list of origins such as https://radio.example',
};
export const hostsOrRanges: ValueKind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .refine((entries) => {
      try {
        new OutboundPolicy(entries);
        return entries.length <= 200;
      } catch {
        return false;
      }
    }) as unknown as z.ZodType<readonly string[], string>,
  allowed: 'a comma-separated list of host names, addresses and ranges such as hooks.internal,10.1.0.0/16',
};
export const hostNames: ValueKind<readonly string[]> = {
  schema: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(z.string().regex(/^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})$/)).max(100)) as unknown as z.ZodType<readonly string[], string>,
  allowed: 'a comma-separated list of host names such as app.internal',
};
export const key32: ValueKind<Uint8Array> = {
  schema: z
    .string()
    .transform((value) => new Uint8Array(/^[0-9a-f]{64}$/i.test(value) ? Buffer.from(value, 'hex') : Buffer.from(value, 'base64')))
    .refine((bytes) => bytes.length === 32),
  allowed: '32 bytes in base64 or hex (openssl rand -hex 32)',
};
const MAILBOX = String.raw`[^\s\p{C}<>@,;:"]+@[^\s\p{C}<>@,;:"]+`;
export const emailAddress: ValueKind<string> = {
  schema: z
    .string()
    .max(254)
    .regex(new RegExp(`^${MAILBOX}$`, 'u')),
  allowed: 'an e-mail address',
};
export const sender: ValueKind<string> = {
  schema: z
    .string()
    .max(320)
    .regex(new RegExp(`^(?:${MAILBOX}|[^<>"\\p{C}]{1,60} <${MAILBOX}>)$`, 'u')),
  allowed: 'an address such as radio@example.org or Radio <radio@example.org>',
};
export const secretText: ValueKind<string> = {
  schema: z.string().refine((value) => Buffer.byteLength(value) >= 32),
  allowed: 'at least 32 bytes',
};
