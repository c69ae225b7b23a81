/* cli/gateway.c - `stateway gateway`: the entry of the gateway process, as super/super.h starts it.
 */
#include "cli/cli_priv.h"

#include "admin/admin.h"
#include "gateway/gateway.h"

#include <sys/stat.h>
#include <unistd.h>

static bool fd_read(const struct sw_cli_args *a, enum sw_flag_id id, int *ret_fd)
{
    uint64_t fd;

    if (!sw_cli__has(a, id) || !sw_slice_u64(sw_slice_cstr(a->values[id]), &fd) || fd > INT32_MAX) {
        return false;
    }
    *ret_fd = (int)fd;
    return true;
}

/* "5,6;7,8": groups of the same size. NULL: it is not. */
static int *fds_read(const char *text, size_t workers, size_t *ret_listens)
{
    struct sw_slice left = sw_slice_cstr(text), group, one;
    int *fds = (int *)calloc(SW_LISTEN_MAX * workers, sizeof(int));
    size_t listens = 0;

    while (fds != NULL && left.len > 0) {
        size_t count = 0;

        sw_slice_cut(left, ';', &group, &left);
        while (group.len > 0) {
            uint64_t fd;

            sw_slice_cut(group, ',', &one, &group);
            if (listens == SW_LISTEN_MAX || count == workers || !sw_slice_u64(one, &fd) ||
                fd > INT32_MAX) {
                free(fds);
                return NULL;
            }
            fds[listens * workers + count++] = (int)fd;
        }
        if (count != workers) {
            free(fds);
            return NULL;
        }
        listens++;
    }
    *ret_listens = listens;
    return fds;
}

static char *text_read(int fd, size_t *ret_len)
{
    struct stat st;
    char *text;
    size_t len = 0;

    if (fstat(fd, &st) != 0) {
        return NULL;
    }
    text = (char *)malloc((size_t)st.st_size + 1);
    while (text != NULL && len < (size_t)st.st_size) {
        ssize_t n = pread(fd, text + len, (size_t)st.st_size - len, (off_t)len);

        if (n <= 0) {
            free(text);
            return NULL;
        }
        len += (size_t)n;
    }
    if (text != NULL) {
        text[len] = '\0';
    }
    *ret_len = len;
    return text;
}

static int wrong(void)
{
    fprintf(stderr, "stateway gateway: the supervisor starts this; use `stateway run`\n");
    return SW_EXIT_USAGE;
}

int sw_cli__gateway(const struct sw_cli_args *args)
{
    struct sw_gateway_start start = {.control_fd = -1, .admin_fd = -1};
    struct sw_config_override override;
    int config_fd = -1, *fds, code;
    char *text;

    if (!fd_read(args, FLAG_CONTROL_FD, &start.control_fd) ||
        !fd_read(args, FLAG_CONFIG_FD, &config_fd) || !sw_cli__has(args, FLAG_NAME) ||
        !sw_cli__has(args, FLAG_WORKERS) || !sw_cli__override(args, &override) ||
        override.workers == 0) {
        return wrong();
    }
    if (sw_cli__has(args, FLAG_ADMIN_FD) && !fd_read(args, FLAG_ADMIN_FD, &start.admin_fd)) {
        return wrong();
    }
    start.workers = override.workers;
    fds = fds_read(sw_cli__has(args, FLAG_LISTEN_FDS) ? args->values[FLAG_LISTEN_FDS] : "",
                   start.workers, &start.listen_count);
    text = text_read(config_fd, &start.config_len);
    if (fds == NULL || text == NULL) {
        free(fds);
        free(text);
        return wrong();
    }
    close(config_fd);
    start.listen_fds = fds;
    start.config_text = text;
    start.config_name = args->values[FLAG_NAME];
    start.override = &override;
    code = sw_gateway_main(&start, &sw_admin);
    free(fds);
    free(text);
    return code;
}
