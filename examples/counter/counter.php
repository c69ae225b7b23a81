<?php // A counter that remembers nothing: Stateway-State comes in, Stateway-Set goes out.
$state = json_decode($_SERVER['HTTP_STATEWAY_STATE'] ?? '{"n":0}', true);
if ($_SERVER['REQUEST_URI'] === '/') {
    $state['n']++;
    header('Stateway-Set: ' . json_encode($state)); // ASCII by default
}
header('Content-Type: text/plain');
echo $state['n'], "\n";
