<?php // The same counter with PHP's own sessions.
session_start();
if (isset($_GET['slow'])) {
    usleep((int) $_GET['slow'] * 1000);
}
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
    echo $_SESSION['n'];
} else {
    echo json_encode(['n' => $_SESSION['n'] ?? 0]);
}
