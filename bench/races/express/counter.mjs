// The same counter with express, express-session, connect-redis and redis, as their manuals write it.
// Two processes, for both cores.
import cluster from 'node:cluster';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import { createClient } from 'redis';

const wait = (ms) => new Promise((done) => { setTimeout(done, ms); });

if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork();
  process.on('SIGTERM', () => { for (const w of Object.values(cluster.workers)) w.kill(); process.exit(0); });
} else {
  const client = await createClient({ url: `redis://127.0.0.1:${process.env.REDIS_PORT}` }).connect();
  const app = express();
  app.use(session({ store: new RedisStore({ client }), secret: 'races', resave: false, saveUninitialized: false }));
  app.post('/', async (req, res) => {
    if (req.query.slow) await wait(Number(req.query.slow));
    req.session.n = (req.session.n ?? 0) + 1;
    res.send(String(req.session.n));
  });
  app.get('/', async (req, res) => {
    if (req.query.slow) await wait(Number(req.query.slow));
    res.json({ n: req.session.n ?? 0 });
  });
  app.listen(process.env.PORT, '127.0.0.1');
}
