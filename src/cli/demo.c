/* cli/demo.c - `stateway demo`: the bundled shop, five times, behind the five placements. */
#include "cli/cli_priv.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define TEXT_BYTES ((size_t)16 * 1024)

#define LISTEN_DEFAULT "127.0.0.1:8080"
#define ADMIN_DEFAULT  "127.0.0.1:9000"

struct demo {
    const char *listen, *admin;
    const char *folder; /* temporary; NULL: the user's own */
};

/* Beside the build's stateway, or where `ninja install` put it. */
static bool shop_find(char path[PATH_MAX])
{
    static const char *const places[] = {"apps/shop", "../libexec/stateway/shop"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n <= 0) {
        return false;
    }
    self[n] = '\0';
    slash = strrchr(self, '/');
    SW_ASSERT(slash != NULL);
    slash[1] = '\0';
    for (size_t i = 0; i < SW_COUNTOF(places); i++) {
        int len = snprintf(path, PATH_MAX, "%s%s", self, places[i]);

        if (len > 0 && len < PATH_MAX && access(path, X_OK) == 0) {
            return true;
        }
    }
    return false;
}

static void pair(struct sw_out *out, const char *before, const char *text, const char *after)
{
    sw_out_cstr(out, before);
    sw_cli__quote(out, text);
    sw_out_cstr(out, after);
}

/* `key: value` of a flag that is not an override, or that has another default here. */
static void demo_text(struct sw_out *out, const struct sw_cli_args *a, const struct demo *d,
                      const char *shop, const char *store)
{
    bool has_admin = strcmp(d->admin, "off") != 0;
    const char *format = a->values[FLAG_LOG_FORMAT];

    pair(out, "listen: [ { address: ", d->listen, " } ]\n");
    if (has_admin) {
        pair(out, "admin: { address: ", d->admin, " }\n");
    } else {
        sw_out_lit(out, "admin: off\n");
    }
    pair(out, "store: ", store, "\n");
    sw_out_printf(out, "log: { format: %s, access: off }\n", format != NULL ? format : "text");
    sw_out_lit(out, "apps:\n"
                    "  shop:\n");
    pair(out, "    command: [", shop, "]\n");
    sw_out_lit(out, "    replicas: 3\n"
                    "    health: { path: /healthz }\n"
                    "    drain: { deadline: 3s }\n"
                    "    environment:\n"
                    "      SHOP_MOUNTS: \"none=/none,token=/token,sealed=/sealed,"
                    "session=/session,sticky=/sticky\"\n"
                    "      SHOP_ALLOW_CRASH: \"1\"\n"
                    "      SHOP_SHOW_COOKIES: \"1\"\n");
    if (has_admin) {
        pair(out, "  control: { servers: [", d->admin, "] }\n");
    }
    sw_out_lit(out, "routes:\n"
                    "  - { path: /none/*, strip: /none, app: shop, state: none,\n"
                    "      expose: [verdict, instance] }\n"
                    "  - { path: /sticky/*, strip: /sticky, app: shop, state: sticky,\n"
                    "      sticky: { idle: 1h, on-loss: notify }, expose: [verdict, instance] }\n"
                    "  - { path: /token/*, strip: /token, app: shop, state: token,\n"
                    "      token: { from: cookie.cart-token, issuer: \"https://shop.example\",\n"
                    "               audience: [shop], mint: { life: 10m, renew: 5m } },\n"
                    "      expose: [verdict, instance] }\n"
                    "  - { path: /sealed/*, strip: /sealed, app: shop, state: sealed,\n"
                    "      sealed: { cookie: { name: cart-sealed } },\n"
                    "      expose: [verdict, instance] }\n"
                    "  - { path: /session/*, strip: /session, app: shop, state: session,\n"
                    "      expose: [verdict, instance] }\n"
                    "  - { path: /*, app: shop, state: none, expose: [verdict, instance] }\n");
    if (has_admin) {
        sw_out_lit(out, "  - { path: /control/*, strip: /control, app: control, state: none }\n");
    }
}

static void on_ready(void *arg)
{
    const struct demo *d = (const struct demo *)arg;
    bool is_unix = strncmp(d->listen, "unix:", 5) == 0;
    char curl[PATH_MAX + 64];

    if (is_unix) {
        snprintf(curl, sizeof(curl), "curl -i --unix-socket %s http://demo", d->listen + 5);
    } else {
        snprintf(curl, sizeof(curl), "curl -i http://%s", d->listen);
        printf("\nOpen this in a browser:\n\n    http://%s/\n", d->listen);
    }
    printf("\nOne shop, three instances, five places for its visitors' state. Try:\n"
           "  put things into each cart, then kill or drain an instance, and look again\n"
           "  %s/session/cart\n",
           curl);
    if (strcmp(d->admin, "off") != 0) {
        bool other = strcmp(d->admin, ADMIN_DEFAULT) != 0;

        printf("  stateway status%s%s\n", other ? " --admin " : "", other ? d->admin : "");
        printf("  stateway roll shop%s%s\n", other ? " --admin " : "", other ? d->admin : "");
    }
    printf("Ctrl-C ends everything%s.\n\n", d->folder != NULL ? ", and removes what it wrote" : "");
    fflush(stdout);
}

/* The flags say no more than the text already does; so only the rest are overrides. */
static struct sw_cli_args without_text_flags(const struct sw_cli_args *args)
{
    struct sw_cli_args a = *args;

    a.values[FLAG_LISTEN] = a.values[FLAG_ADMIN] = a.values[FLAG_STORE] = NULL;
    a.values[FLAG_LOG_FORMAT] = NULL;
    return a;
}

int sw_cli__demo(const struct sw_cli_args *args)
{
    struct demo d = {
        .listen = sw_cli__has(args, FLAG_LISTEN) ? args->values[FLAG_LISTEN] : LISTEN_DEFAULT,
        .admin = sw_cli__has(args, FLAG_ADMIN) ? args->values[FLAG_ADMIN] : ADMIN_DEFAULT,
    };
    struct sw_cli_args rest = without_text_flags(args);
    char shop[PATH_MAX], folder[] = "/tmp/stateway-demo-XXXXXX", store[PATH_MAX + 8];
    const char *wanted = args->values[FLAG_STORE];
    struct sw_loaded l;
    struct sw_out text;
    int code;

    if (args->word_count > 0 || args->rest != NULL) {
        return sw_cli__usage_error(args->command, "it takes flags only");
    }
    if (!shop_find(shop)) {
        fprintf(stderr, "stateway demo: the shop is not there: build it (ninja apps/shop), or "
                        "install stateway as a whole\n");
        return SW_EXIT_START;
    }
    if (wanted == NULL && mkdtemp(folder) == NULL) {
        fprintf(stderr, "stateway demo: cannot make a folder in /tmp: %s; name one with --store\n",
                strerror(errno));
        return SW_EXIT_START;
    }
    d.folder = wanted == NULL ? folder : NULL;
    snprintf(store, sizeof(store), "%s%s",
             wanted == NULL || strchr(wanted, ':') == NULL ? "lmdb:" : "",
             wanted == NULL ? folder : wanted);
    text = sw_out_init(malloc(TEXT_BYTES), TEXT_BYTES);
    if (text.ptr == NULL) {
        fprintf(stderr, "stateway: no memory\n");
        return SW_EXIT_START;
    }
    demo_text(&text, args, &d, shop, store);
    code = sw_cli__load_text(&rest, "demo", &text, &l);
    if (code != SW_EXIT_OK) {
        if (d.folder != NULL) {
            rmdir(d.folder);
        }
        return code;
    }
    code = sw_super_run(&(struct sw_super_options){
        .gateway_args = l.gateway_args,
        .text = l.text,
        .name = l.name,
        .config = l.config,
        .scratch = d.folder,
        .ready = on_ready,
        .arg = &d,
    });
    sw_cli__loaded_fini(&l);
    return code;
}
