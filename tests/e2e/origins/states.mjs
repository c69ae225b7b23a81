// An app that answers as the request's body says (test_real_apps.py); ordinary Node.
import { createServer } from 'node:http';
import { request } from 'node:http';

const call = ({ method, url, headers = {}, body = '' }) => new Promise((done, failed) => {
    const out = request(url, { method, headers: { ...headers, 'Content-Length': Buffer.byteLength(body) } }, (got) => {
        const parts = [];
        got.on('data', (part) => parts.push(part));
        got.on('end', () => done({ status: got.statusCode, etag: got.headers.etag ?? null,
            error: got.headers['stateway-error'] ?? null, body: Buffer.concat(parts).toString() }));
    });
    out.on('error', failed);
    out.end(body);
});

createServer(async (req, res) => {
    const parts = [];
    for await (const part of req) parts.push(part);
    const ask = JSON.parse(Buffer.concat(parts).toString() || '{}');
    try {
        const calls = [];
        for (const c of ask.calls ?? []) {
            if (c.headers?.['Stateway-Trace']) c.headers['Stateway-Trace'] = req.headers['stateway-trace'];
            calls.push(await call({ ...c, url: (c.url ?? req.headers['stateway-ref']) + (c.query ?? '') }));
        }
        await new Promise((go) => setTimeout(go, (ask.sleep ?? 0) * 1000));
        if (ask.die) process.kill(process.pid, 'SIGKILL');
        res.statusCode = ask.status ?? 200;
        for (const [name, value] of ask.headers ?? []) res.appendHeader(name, value);
        const seen = Object.fromEntries(Object.entries(req.headers).filter(([name]) => name.startsWith('stateway-')));
        res.end(ask.body ?? JSON.stringify({ seen, calls, method: req.method, path: req.url }));
    } catch (e) {
        res.writeHead(500).end(String(e));
    }
}).listen(process.env.PORT, '127.0.0.1');
