// Says what was understood.
const crypto = require('crypto');
require('http').createServer((req, res) => {
  const pieces = [];
  req.on('data', (d) => pieces.push(d));
  req.on('end', () => {
    const body = Buffer.concat(pieces);
    const data = JSON.stringify({
      method: req.method, raw: req.url, host: req.headers.host, a: req.headers['x-a'], length: body.length,
      sha256: crypto.createHash('sha256').update(body).digest('hex'),
    });
    res.setHeader('Content-Length', Buffer.byteLength(data));
    res.end(data);
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
