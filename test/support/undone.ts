import type { Database, Queryable } from '../../src/backing/database/database.js';

/**
 * A database in which everything that is done between two `undo` is undone: all of it runs in one transaction that never commits, what would be a
 * transaction is a savepoint in it. For one process with one connection.
 */
export class UndoneDatabase implements Database {
  readonly #database: Database;
  #connection: Queryable | undefined;
  #end: ((error: Error) => void) | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  #last: Promise<unknown> = Promise.resolve();

  constructor(database: Database) {
    this.#database = database;
  }

  /** From here on what is done is undone. */
  async begin(): Promise<void> {
    await this.#alone(async () => {
      await new Promise<void>((begun, failed) => {
        this.#ended = this.#database
          .transaction((connection) => {
            this.#connection = connection;
            begun();
            return new Promise((_, reject) => {
              this.#end = reject;
            });
          })
          .catch(failed);
      });
    });
  }

  /** What was done since `begin` has not been; what is done from here on stays. */
  async undo(): Promise<void> {
    await this.#alone(async () => {
      this.#end?.(new Error('undone'));
      await this.#ended;
      this.#connection = undefined;
    });
  }

  query<Row extends object>(sql: string, values?: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }> {
    return this.#alone(() =>
      this.#connection ? this.#within((connection) => connection.query<Row>(sql, values)) : this.#database.query<Row>(sql, values),
    );
  }

  transaction<T>(work: (connection: Queryable) => Promise<T>): Promise<T> {
    return this.#alone(() => (this.#connection ? this.#within(work) : this.#database.transaction(work)));
  }

  stop(): Promise<void> {
    return this.#database.stop();
  }

  async #within<T>(work: (connection: Queryable) => Promise<T>): Promise<T> {
    const connection = this.#connection!;
    await connection.query('savepoint inside');
    try {
      const result = await work(connection);
      await connection.query('release savepoint inside');
      return result;
    } catch (error) {
      await connection.query('rollback to savepoint inside');
      throw error;
    }
  }

  /** One after the other: savepoints of two would be taken for each other's. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}
