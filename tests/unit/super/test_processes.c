/* unit/super/test_processes.c - the supervisor with real processes and a gateway that plays
 * scripts.
 *
 * The test binary is also the gateway: the supervisor executes it with "gateway" as first argument.
 */
#include "fake_gateway.h"

#include "super/super.h"
#include "super/super_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 15000

/* One supervisor in a process of its own, and what it and its children print. */
struct run {
    pid_t pid;
    int fd;
    size_t len, at; /* at: what expect() has not looked at yet */
    char log[512 * 1024];
};

static struct run run; /* cmocka's tests run one after the other */

static const char *const loud[] = {
    "sh", "-c",
    "echo to stdout; echo to stderr >&2; echo $STATEWAY_INSTANCE on $PORT; "
    "printf 'no end'; exec sleep 1000",
    NULL};

static struct sw_config_app app_of(const char *name, const char *const *command)
{
    return (struct sw_config_app){.name = sw_slice_cstr(name), .command = command, .replicas = 1};
}

static struct sw_config config_of(struct sw_config_app *apps, size_t count)
{
    struct sw_config c = {.apps = apps, .app_count = count, .workers = 2};

    c.log_level = SW_LOG_DEBUG;
    c.timeouts.stop_ns = 2 * SW_NS_PER_S;
    c.listen_count = 1;
    c.listen[0].addr.in =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c.listen[0].addr.len = sizeof(struct sockaddr_in);
    c.admin_addr = c.listen[0].addr;
    return c;
}

static void start(const char *script, const struct sw_config *config, const char *scratch)
{
    int pair[2];

    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    run.len = run.at = 0;
    run.pid = fork();
    assert_true(run.pid >= 0);
    if (run.pid == 0) {
        dup2(pair[1], STDOUT_FILENO);
        dup2(pair[1], STDERR_FILENO);
        _exit(sw_super_run(&(struct sw_super_options){
            .text = sw_slice_cstr(script), .name = "test", .config = config, .scratch = scratch}));
    }
    close(pair[1]);
    run.fd = pair[0];
    fcntl(run.fd, F_SETFL, O_NONBLOCK);
}

/* False: end of file. */
static bool more(int timeout_ms)
{
    struct pollfd p = {.fd = run.fd, .events = POLLIN};
    ssize_t n;

    if (poll(&p, 1, timeout_ms) == 0) {
        return true;
    }
    if (run.len + 1 >= sizeof(run.log)) {
        run.len = run.at = 0; /* floods: what was looked at goes */
    }
    n = read(run.fd, run.log + run.len, sizeof(run.log) - 1 - run.len);
    run.len += n > 0 ? (size_t)n : 0;
    run.log[run.len] = '\0';
    return n != 0;
}

/* The next line with that text in it. */
static const char *expect(const char *text)
{
    uint64_t until_ns = sw_super__now_ns() + WAIT_MS * SW_NS_PER_MS;

    for (;;) {
        char *found = run.len > run.at ? strstr(run.log + run.at, text) : NULL;
        char *end = found == NULL ? NULL : strchr(found, '\n');

        if (end != NULL) {
            while (found > run.log && found[-1] != '\n') {
                found--;
            }
            run.at = (size_t)(end - run.log) + 1;
            return found;
        }
        if (sw_super__now_ns() > until_ns || !more(100)) {
            fail_msg("no line with \"%s\" in:\n%.*s", text, (int)run.len, run.log);
        }
    }
}

static int number_after(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    assert_non_null(at);
    return (int)strtol(at + strlen(key), NULL, 10);
}

static bool is_gone(pid_t pid)
{
    for (int i = 0; i < WAIT_MS / 10; i++) {
        waitpid(pid, NULL, WNOHANG); /* orphans become ours: see main */
        if (kill(pid, 0) != 0 && errno == ESRCH) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

static bool lives(pid_t pid)
{
    return kill(pid, 0) == 0;
}

/* The exit code; reads on meanwhile, so that nobody waits for us. */
static int end(void)
{
    uint64_t until_ns = sw_super__now_ns() + WAIT_MS * SW_NS_PER_MS;
    int status = 0;

    for (;;) {
        if (waitpid(run.pid, &status, WNOHANG) == run.pid) {
            break;
        }
        if (sw_super__now_ns() > until_ns) {
            fail_msg("the supervisor does not end:\n%.*s", (int)run.len, run.log);
        }
        if (!more(10)) {
            usleep(1000);
        }
    }
    while (more(0) && poll(&(struct pollfd){.fd = run.fd, .events = POLLIN}, 1, 0) > 0) {
    }
    close(run.fd);
    run.pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A test that failed leaves nothing behind: what its supervisor ran dies with it. */
static int cleanup(void **state)
{
    (void)state;
    if (run.pid > 0) {
        kill(run.pid, SIGKILL);
        waitpid(run.pid, NULL, 0);
        close(run.fd);
        run.pid = 0;
    }
    return 0;
}

static int stop(void)
{
    kill(run.pid, SIGTERM);
    return end();
}

/* The process of this name with our supervisor as parent; 0: none now. */
static pid_t child_look(const char *name)
{
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    pid_t found = 0;

    assert_non_null(proc);
    while (found == 0 && (e = readdir(proc)) != NULL) {
        char path[64], comm[32], state;
        int pid, parent;
        FILE *f;

        if (e->d_name[0] < '1' || e->d_name[0] > '9') {
            continue;
        }
        snprintf(path, sizeof(path), "/proc/%.20s/stat", e->d_name);
        f = fopen(path, "r");
        if (f == NULL) {
            continue;
        }
        if (fscanf(f, "%d (%31[^)]) %c %d", &pid, comm, &state, &parent) == 4 &&
            parent == run.pid && strcmp(comm, name) == 0) {
            found = pid;
        }
        fclose(f);
    }
    closedir(proc);
    return found;
}

static pid_t child_named(const char *name)
{
    pid_t pid = 0;

    for (int i = 0; pid == 0 && i < WAIT_MS / 10; i++) {
        pid = child_look(name);
        usleep(10000);
    }
    return pid;
}

/* ---- the usual ----------------------------------------------------------------------------- */

static void starts_and_stops(void **state)
{
    struct sw_config_app app = app_of("shop", loud);
    struct sw_config c = config_of(&app, 1);
    pid_t gateway, pid, port;
    const char *line;

    (void)state;
    start("hs0wr", &c, NULL);
    gateway = number_after(expect("G pid="), "pid=");
    line = expect("G fds");
    assert_int_equal(number_after(line, "listening="), 3); /* 2 workers, 1 admin */
    assert_int_equal(number_after(line, "others="), 2);    /* control, configuration */
    assert_non_null(strchr(line, ','));
    line = expect("G STARTED");
    assert_int_equal(number_after(line, "status="), 0);
    pid = number_after(line, "pid=");
    port = number_after(line, "address=127.0.0.1:");
    assert_in_range(port, SW_PORT_FIRST, SW_PORT_FIRST + SW_PORT_COUNT - 1);
    expect("ready: http://127.0.0.1:");
    run.at = 0;
    expect("shop/1 | to stdout");
    run.at = 0;
    expect("shop/1 | to stderr");
    run.at = 0;
    assert_int_equal(number_after(expect("shop/1 | shop/1 on "), " on "), port);
    assert_true(lives(pid));
    assert_int_equal(getpgid(pid), pid);
    assert_int_equal(getpgid(gateway), gateway);
    assert_int_equal(stop(), 0);
    run.at = 0;
    expect("shop/1 | no end"); /* the line had no end: it is passed on at the app's end */
    assert_true(is_gone(pid));
    assert_true(is_gone(gateway));
}

static void socket_placeholder(void **state)
{
    static const char *const command[] = {"sh", "-c",
                                          "echo path={socket} port=$PORT.; exec sleep 1000", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);
    char path[128];
    struct stat st;
    const char *line;

    (void)state;
    unsetenv("PORT");
    start("hs0wr", &c, NULL);
    line = strstr(expect("G STARTED"), "address=unix:");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "address=unix:%127s", path), 1);
    run.at = 0;
    line = expect("shop/1 | path=");
    assert_int_equal(strncmp(strstr(line, "path=") + 5, path, strlen(path)), 0);
    assert_non_null(strstr(line, "port=.")); /* PORT would promise what nobody connects to */
    *strrchr(path, '/') = '\0';
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stop(), 0);
    assert_int_equal(stat(path, &st), -1);
}

static void environment_and_folder(void **state)
{
    static const char *const command[] = {
        "sh", "-c", "echo $GREETING from $(pwd), $PORT; env | grep -c ^STATEWAY_; exec sleep 1000",
        NULL};
    static const struct sw_config_env vars[] = {{{"GREETING", 8}, {"hello", 5}},
                                                {{"PORT", 4}, {"1", 1}}};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    app.environment = vars;
    app.environment_count = 2;
    app.directory = SW_S("/usr");
    start("hs0wr", &c, NULL);
    assert_true(number_after(expect("shop/1 | hello from /usr, "), "/usr, ") >= (int)SW_PORT_FIRST);
    expect("shop/1 | 3"); /* SUPERVISOR, INSTANCE, INCARNATION */
    assert_int_equal(stop(), 0);
}

/* ---- what cannot be started ---------------------------------------------------------------- */

static void command_missing(void **state)
{
    static const char *const command[] = {"no-such-command-here", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    start("hs0wr", &c, NULL);
    assert_int_equal(number_after(expect("G STARTED"), "status="), ENOENT);
    run.at = 0;
    expect("shop/1: cannot run no-such-command-here: not found in PATH; see `command` of app shop");
    assert_int_equal(stop(), 0);
    assert_null(strstr(run.log, "G EXITED"));
}

static void folder_missing(void **state)
{
    struct sw_config_app app = app_of("shop", loud);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    app.directory = SW_S("/no/such/folder");
    start("hs0wr", &c, NULL);
    assert_int_equal(number_after(expect("G STARTED"), "status="), ENOENT);
    run.at = 0;
    expect("shop/1: cannot enter its folder /no/such/folder");
    assert_int_equal(stop(), 0);
}

static void address_in_use(void **state)
{
    struct sw_config c = config_of(NULL, 0);
    struct sw_addr a = c.listen[0].addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    char want[64];

    (void)state;
    /* one that would share: without a closer look two gateways would each get half */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
    assert_int_equal(bind(fd, &a.sa, a.len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, &a.sa, &a.len), 0);
    c.listen[0].addr = a;
    start("hr", &c, NULL);
    snprintf(want, sizeof(want), "cannot listen on 127.0.0.1:%u: the address is in use",
             sw_addr_port(&a));
    expect(want);
    assert_int_equal(end(), SW_EXIT_START);
    close(fd);
}

static void gateway_gives_up(void **state)
{
    struct sw_config c = config_of(NULL, 0);

    (void)state;
    start("e3", &c, NULL);
    assert_int_equal(end(), SW_EXIT_START);
    start("e1", &c, NULL);
    assert_int_equal(end(), SW_EXIT_FAILED);
}

/* ---- ends of the gateway ------------------------------------------------------------------- */

static void gateway_killed(void **state)
{
    struct sw_config_app app = app_of("shop", loud);
    struct sw_config c = config_of(&app, 1);
    uint64_t at_ns;
    pid_t gateway, pid;

    (void)state;
    start("hs0wr", &c, NULL);
    gateway = number_after(expect("G pid="), "pid=");
    pid = number_after(expect("G STARTED"), "pid=");
    expect("ready:");
    for (int i = 0; i < 3; i++) {
        at_ns = sw_super__now_ns();
        assert_int_equal(kill(gateway, SIGKILL), 0);
        gateway = number_after(expect("G pid="), "pid=");
        assert_int_equal(number_after(expect("G INSTANCE"), "pid="), pid);
        expect("the gateway process is back after");
        assert_true(sw_super__now_ns() - at_ns < SW_NS_PER_S);
        assert_true(lives(pid));
    }
    assert_int_equal(stop(), 0);
    assert_true(is_gone(pid));
}

static void gateway_dies_always(void **state)
{
    struct sw_config c = config_of(NULL, 0);
    int count = 0;

    (void)state;
    start("hre7", &c, NULL); /* it was ready: so it is tried again and again, ever slower */
    expect("exit 7");
    for (uint64_t until_ns = sw_super__now_ns() + SW_NS_PER_S; sw_super__now_ns() < until_ns;) {
        more(10);
    }
    for (const char *at = run.log; (at = strstr(at, "exit 7")) != NULL; at++) {
        count++;
    }
    assert_in_range(count, 3, 8); /* 0, 0, 50, 100, 200, 400, 800 ms and what a start takes */
    assert_int_equal(stop(), 0);
}

static void gateway_speaks_nonsense(void **state)
{
    static const char *const scripts[] = {"hrV",    "hrK", "hrA", "hrL", "hrZ",
                                          "hrs0wD", "hrI", "hrG", "hrN"};
    struct sw_config_app app = app_of("shop", loud);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(scripts); i++) {
        start(scripts[i], &c, NULL);
        expect("ready:");
        expect("a message of the gateway process is invalid");
        expect("starting it again");
        expect("G pid=");
        assert_int_equal(stop(), 0);
    }
}

/* 2000 processes asked for, by a gateway that reads no answer: neither memory nor processes grow
 * without bound, and the end is orderly. */
static void gateway_floods(void **state)
{
    static const char *const command[] = {"no-such-command-here", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    c.log_level = SW_LOG_ERROR;
    start("hrF", &c, NULL);
    expect("G STARTED");
    assert_int_equal(stop(), 0);
}

static void gateway_ignores_shutdown(void **state)
{
    struct sw_config c = config_of(NULL, 0);

    (void)state;
    c.timeouts.stop_ns = 100 * SW_NS_PER_MS;
    start("hri", &c, NULL);
    expect("ready:");
    assert_int_equal(stop(), 0);
    run.at = 0;
    expect("the gateway process did not end in time: killing it");
}

/* ---- ends of instances --------------------------------------------------------------------- */

static void instance_stop_and_kill(void **state)
{
    static const char *const polite[] = {
        "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done", NULL};
    static const char *const stubborn[] = {
        "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done", NULL};
    struct sw_config_app apps[] = {app_of("polite", polite), app_of("stubborn", stubborn)};
    struct sw_config c = config_of(apps, 2);

    (void)state;
    /* two waits: the second is for EXITED */
    start("hs0wprtw", &c, NULL);
    expect("G EXITED");
    assert_int_equal(stop(), 0);
    start("hs1wprtw", &c, NULL);
    assert_int_equal(number_after(expect("G EXITED"), "status="), SIGKILL);
    assert_int_equal(stop(), 0);
    start("hs1wrkw", &c, NULL);
    assert_int_equal(number_after(expect("G EXITED"), "status="), SIGKILL);
    assert_int_equal(stop(), 0);
}

static void instance_leaves_children(void **state)
{
    static const char *const command[] = {"sh", "-c", "sleep 1000 & echo kid=$!; exit 7", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);

    (void)state;
    start("hs0wwr", &c, NULL);
    assert_int_equal(number_after(expect("G EXITED"), "status="), 7 << 8);
    run.at = 0;
    assert_true(is_gone(number_after(expect("kid="), "kid=")));
    assert_int_equal(stop(), 0);
}

/* A daemon: left its group, its session and its parent. `env -i` also leaves its environment. */
static const char *const daemon_command[] = {
    "sh", "-c", "setsid -f sh -c 'echo kid=$$; exec sleep 1000'; exec sleep 1000", NULL};

static void daemon_at_end(void **state)
{
    static const char *const bare[] = {
        "sh", "-c", "env -i setsid -f sh -c 'echo kid=$$; exec sleep 1000'; exec sleep 1000", NULL};
    struct sw_config_app app = app_of("shop", daemon_command);
    struct sw_config c = config_of(&app, 1);
    pid_t kid;

    (void)state;
    start("hs0wr", &c, NULL);
    kid = number_after(expect("kid="), "kid=");
    assert_int_equal(stop(), 0);
    assert_true(is_gone(kid));
    app.command = bare;
    start("hs0wr", &c, NULL);
    kid = number_after(expect("kid="), "kid=");
    assert_int_equal(stop(), 0);
    assert_true(is_gone(kid));
}

/* ---- ends of the supervisor ---------------------------------------------------------------- */

static void supervisor_killed(void **state)
{
    static const char *const command[] = {
        "sh", "-c",
        "sleep 1000 & echo kid=$!; setsid -f sh -c 'echo daemon=$$; exec sleep 1000'; wait", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);
    char scratch[] = "/tmp/stateway-test-XXXXXX", path[64];
    pid_t gateway, pid, kid, daemonised, guard;
    int fd;

    (void)state;
    for (int round = 0; round < 2; round++) {
        memcpy(scratch + sizeof(scratch) - 7, "XXXXXX", 6);
        assert_non_null(mkdtemp(scratch));
        snprintf(path, sizeof(path), "%s/file", scratch);
        fd = open(path, O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        close(fd);
        start("hs0wr", &c, scratch);
        gateway = number_after(expect("G pid="), "pid=");
        pid = number_after(expect("G STARTED"), "pid=");
        run.at = 0;
        kid = number_after(expect("kid="), "kid=");
        run.at = 0;
        daemonised = number_after(expect("daemon="), "daemon=");
        guard = child_named("stateway-guard");
        assert_true(guard > 0);
        if (round == 1) { /* the guard is killed first: another takes its place */
            kill(guard, SIGKILL);
            expect("the guard process ended: starting it again");
            guard = child_named("stateway-guard");
            assert_true(guard > 0);
        }
        kill(run.pid, SIGKILL);
        assert_int_equal(end(), -SIGKILL);
        assert_true(is_gone(gateway));
        assert_true(is_gone(pid));
        assert_true(is_gone(kid));
        assert_true(is_gone(daemonised));
        assert_true(is_gone(guard));
        assert_int_equal(access(scratch, F_OK), -1);
    }
}

static void second_interrupt(void **state)
{
    static const char *const stubborn[] = {
        "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done", NULL};
    struct sw_config_app app = app_of("shop", stubborn);
    struct sw_config c = config_of(&app, 1);
    uint64_t at_ns;

    (void)state;
    c.timeouts.stop_ns = 60 * SW_NS_PER_S;
    start("hs0wri", &c, NULL);
    expect("ready:");
    at_ns = sw_super__now_ns();
    kill(run.pid, SIGINT);
    expect("SIGINT: stopping");
    kill(run.pid, SIGINT);
    assert_int_equal(end(), 0);
    assert_true(sw_super__now_ns() - at_ns < 3 * SW_NS_PER_S);
}

static void hangup(void **state)
{
    struct sw_config c = config_of(NULL, 0);

    (void)state;
    start("hr", &c, NULL);
    expect("ready:");
    kill(run.pid, SIGHUP);
    expect("SIGHUP: reload is not in this version");
    assert_int_equal(stop(), 0);
}

/* Apps that print without end, and nobody who reads: the supervisor still hears its signals. */
static void flood(void **state)
{
    static const char *const command[] = {"sh", "-c", "yes & yes >&2 & wait", NULL};
    struct sw_config_app app = app_of("shop", command);
    struct sw_config c = config_of(&app, 1);
    uint64_t at_ns;
    pid_t pid;

    (void)state;
    start("hs0wr", &c, NULL);
    pid = number_after(expect("G STARTED"), "pid=");
    usleep(1500 * 1000); /* beyond SW_SUPER_STALL_NS */
    kill(run.pid, SIGTERM);
    assert_true(is_gone(pid)); /* still nobody reads */
    at_ns = sw_super__now_ns();
    assert_int_equal(end(), 0);
    assert_true(sw_super__now_ns() - at_ns < 5 * SW_NS_PER_S);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(starts_and_stops, cleanup),
        cmocka_unit_test_teardown(socket_placeholder, cleanup),
        cmocka_unit_test_teardown(environment_and_folder, cleanup),
        cmocka_unit_test_teardown(command_missing, cleanup),
        cmocka_unit_test_teardown(folder_missing, cleanup),
        cmocka_unit_test_teardown(address_in_use, cleanup),
        cmocka_unit_test_teardown(gateway_gives_up, cleanup),
        cmocka_unit_test_teardown(gateway_killed, cleanup),
        cmocka_unit_test_teardown(gateway_dies_always, cleanup),
        cmocka_unit_test_teardown(gateway_speaks_nonsense, cleanup),
        cmocka_unit_test_teardown(gateway_floods, cleanup),
        cmocka_unit_test_teardown(gateway_ignores_shutdown, cleanup),
        cmocka_unit_test_teardown(instance_stop_and_kill, cleanup),
        cmocka_unit_test_teardown(instance_leaves_children, cleanup),
        cmocka_unit_test_teardown(daemon_at_end, cleanup),
        cmocka_unit_test_teardown(supervisor_killed, cleanup),
        cmocka_unit_test_teardown(second_interrupt, cleanup),
        cmocka_unit_test_teardown(hangup, cleanup),
        cmocka_unit_test_teardown(flood, cleanup),
    };

    if (argc > 1 && strcmp(argv[1], "gateway") == 0) {
        return fake_gateway_main(argc, argv);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that orphans do not stay zombies of a lazy init */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
