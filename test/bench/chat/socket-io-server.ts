// Socket.IO as its documentation sets up rooms, by WebSocket alone, one process. socket-io-server.ts PORT
import { Server } from 'socket.io';

const server = new Server(Number(process.argv[2]), { transports: ['websocket'], perMessageDeflate: false, serveClient: false });
server.on('connection', (socket) => {
  socket.on('join', async (room: string, done: () => void) => {
    await socket.join(room);
    done();
  });
  socket.on('pub', ({ room, text }: { room: string; text: string }) => server.to(room).emit('msg', { room, text }));
});
console.log('ready');
