import type Koa from 'koa';
import { pathOf, queryOf } from '../../runtime/request-head.js';

/**
 * `path` and `querystring` of Koa's request, exactly as they are in the target, which the listener
 * has brought into origin form. Koa itself uses Node's legacy parser, which throws for some
 * addresses each time it is asked.
 */
export const WRITTEN_TARGET: PropertyDescriptorMap & ThisType<Koa.Request> = {
  path: {
    get() {
      return pathOf(this.req.url ?? '/');
    },
  },
  querystring: {
    get() {
      return queryOf(this.req.url ?? '/');
    },
  },
};
