/** Variables that the system needs to find and load a program. */
const PROGRAM_VARIABLES = /^(PATH|LD_LIBRARY_PATH)$/;
/** Variables that Node, its C library and the PostgreSQL client read by themselves. */
const NODE_VARIABLES =
  /^(PATH|LD_LIBRARY_PATH|HOME|TZ|TMPDIR|LANG|NODE_(OPTIONS|EXTRA_CA_CERTS|NO_WARNINGS)|SSL_CERT_(FILE|DIR)|OPENSSL_CONF|UV_THREADPOOL_SIZE|MALLOC_\w+|PG[A-Z]+)$/;

/**
 * The environment of a child process, without Veza's own variables, which contain secrets: `ffmpeg`
 * reads untrusted input, and Veza's own `node` processes get their configuration from their parent.
 * `defaults` apply to variables that the environment does not set.
 */
export function childEnvironment(kind: 'ffmpeg' | 'node', defaults: Readonly<Record<string, string>> = {}): Record<string, string> {
  const needed = kind === 'ffmpeg' ? PROGRAM_VARIABLES : NODE_VARIABLES;
  const environment: Record<string, string> = { ...defaults };
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined && needed.test(name)) environment[name] = value;
  return environment;
}
