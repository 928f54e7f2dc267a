/**
 * Anything that opens an account for longer than a session does is made only by a person who has
 * shown the password or a code again a short time before.
 */
export const freshSignIn = `
-- When its holder last showed the password or a code again, after the sign-in.
alter table sessions add column proven_at timestamptz;
-- It was made in a session that was signed in a short time before, without asking again: it ends with a new password, and when everybody is signed out.
alter table api_keys add column by_session_alone boolean not null default false;
`;
