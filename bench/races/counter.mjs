// A counter behind stateway: the state comes with the request, the update goes out with the answer.
//   POST /k/NAME           adds one to n, replaces the state
//   POST /k/NAME?member=M  adds one to member M, as a merge patch
//   POST /k/NAME?slow=MS   thinks that long in between; GET: reads, and answers n
import http from 'node:http';

http.createServer((req, res) => {
  const asked = new URL(req.url, 'http://a').searchParams;
  const state = JSON.parse(req.headers['stateway-state'] ?? '{}');
  const member = asked.get('member');
  let n = state[member ?? 'n'] ?? 0;
  const answer = () => {
    if (req.method === 'POST') {
      n++;
      if (member) res.setHeader('Stateway-Patch', JSON.stringify({ [member]: n }));
      else res.setHeader('Stateway-Set', JSON.stringify({ n }));
    }
    res.end(req.method === 'POST' ? String(n) : JSON.stringify(state));
  };
  if (asked.has('slow')) setTimeout(answer, Number(asked.get('slow')));
  else answer();
}).listen(process.env.PORT, '127.0.0.1');
