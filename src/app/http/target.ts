import type Koa from 'koa';
import { pathOf, queryOf } from '../../runtime/request-head.js';

/**
 * `path` and `querystring` of Koa's request as they are written; the listener has brought the target into origin form. Koa reads them
 * with Node's legacy parser, which throws at some addresses, each time that it is asked.
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
