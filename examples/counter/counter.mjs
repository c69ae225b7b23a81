// A counter that remembers nothing: Stateway-State comes in, Stateway-Set goes out.
import { createServer } from 'node:http';

// Header values are ASCII, and JSON.stringify writes other letters as they are: escape them.
const ascii = (json) => json.replace(/[\u007f-\uffff]/g,
    (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

createServer((request, response) => {
    const state = JSON.parse(request.headers['stateway-state'] || '{"n":0}');
    if (request.url === '/') {
        state.n++;
        response.setHeader('Stateway-Set', ascii(JSON.stringify(state)));
    }
    response.end(state.n + '\n');
}).listen(process.env.PORT || 3000, '127.0.0.1');
