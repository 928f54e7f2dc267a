import { ACCESS_VARIABLES } from './variables/access.js';
import { CHAT_VARIABLES } from './variables/chat.js';
import { CORE_VARIABLES } from './variables/core.js';
import { MEDIA_VARIABLES } from './variables/media.js';
import { NETWORK_VARIABLES } from './variables/network.js';
import { OPERATIONS_VARIABLES } from './variables/operations.js';
import { STORAGE_VARIABLES } from './variables/storage.js';
import type { Variable } from './variables/variable.js';

/**
 * Every variable, by its name in `Config`. The parser, the type of `Config` and
 * `docs/configuration.md` are made from this table.
 */
export const VARIABLES = {
  ...CORE_VARIABLES,
  ...NETWORK_VARIABLES,
  ...STORAGE_VARIABLES,
  ...MEDIA_VARIABLES,
  ...CHAT_VARIABLES,
  ...ACCESS_VARIABLES,
  ...OPERATIONS_VARIABLES,
} as const;

/** The types of the parsed variables, before defaults that depend on other variables. */
export type ConfigValues = { [K in keyof typeof VARIABLES]: (typeof VARIABLES)[K] extends Variable<infer T> ? T : never };
