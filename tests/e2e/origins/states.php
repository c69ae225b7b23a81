<?php // An app that answers as the request's body says (test_real_apps.py); ordinary PHP.
$ask = json_decode(file_get_contents('php://input') ?: '{}', true);

function call(array $c): array
{
    $lines = ['Connection: close'];
    foreach ($c['headers'] ?? [] as $name => $value) {
        $lines[] = "$name: " . ($name === 'Stateway-Trace' ? $_SERVER['HTTP_STATEWAY_TRACE'] : $value);
    }
    $context = stream_context_create(['http' => ['method' => $c['method'], 'header' => $lines,
        'content' => $c['body'] ?? '', 'ignore_errors' => true, 'protocol_version' => 1.1]]);
    $body = file_get_contents(($c['url'] ?? $_SERVER['HTTP_STATEWAY_REF']) . ($c['query'] ?? ''), false, $context);
    $got = ['status' => (int) explode(' ', $http_response_header[0])[1], 'etag' => null, 'error' => null,
        'body' => $body];
    foreach ($http_response_header as $line) {
        if (preg_match('/^(etag|stateway-error): *(.*)$/i', $line, $m)) {
            $got[strtolower($m[1]) === 'etag' ? 'etag' : 'error'] = $m[2];
        }
    }
    return $got;
}

$calls = array_map('call', $ask['calls'] ?? []);
usleep((int) (($ask['sleep'] ?? 0) * 1e6));
if ($ask['die'] ?? false) {
    posix_kill(getmypid(), 9);
}
$seen = [];
foreach ($_SERVER as $name => $value) {
    if (str_starts_with($name, 'HTTP_STATEWAY_')) {
        $seen[strtolower(strtr(substr($name, 5), '_', '-'))] = $value;
    }
}
http_response_code($ask['status'] ?? 200);
foreach ($ask['headers'] ?? [] as [$name, $value]) {
    header("$name: $value", strtolower($name) === 'content-type');
}
echo $ask['body'] ?? json_encode(['seen' => $seen, 'calls' => $calls, 'method' => $_SERVER['REQUEST_METHOD'],
    'path' => $_SERVER['REQUEST_URI']]);
