import { z } from 'zod';
import { CHANNEL_ROLES, ROLES } from '../../access/roles.js';
import { ROOM_ROLES } from '../../chat/protocol/protocol.js';

/** Roles of an account, in a channel, and in its chat room. */
export const roleSchema = z.enum(ROLES).meta({ id: 'Role' });
export const channelRoleSchema = z.enum(CHANNEL_ROLES).meta({ id: 'ChannelRole' });
export const chatRoleSchema = z.enum(ROOM_ROLES).meta({ id: 'ChatRole' });
