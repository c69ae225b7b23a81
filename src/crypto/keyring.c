/* crypto/keyring.c - the file of secrets; see crypto.h for its format.
 *
 * Read strictly: a member this version does not know is refused rather than dropped, since the next
 * writer of the file would lose it.
 */
#include "crypto/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"

#define FILE_BYTES_MAX 8192 /* 16 keys of about 130 bytes, with room for white space */
#define PATH_BYTES_MAX 4096

static const struct sw_slice state_names[] = {
    [SW_KEY_SEED] = SW_S("seed"),
    [SW_KEY_ACTIVE] = SW_S("active"),
    [SW_KEY_RETIRED] = SW_S("retired"),
};

/* Text for people, valid until this thread's next failure. */
static _Thread_local char why_text[512];

static enum sw_err SW_PRINTF(3, 4)
    refuse(enum sw_err err, const char **ret_why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why_text, sizeof(why_text), fmt, ap);
    va_end(ap);
    *ret_why = why_text;
    return err;
}

static void key_derive(struct sw_key *key)
{
    sw_hkdf(key->secret, SW_S("stateway pin v1"), key->pin.bytes);
    sw_hkdf(key->secret, SW_S("stateway visitor v1"), key->visitor.bytes);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool read_state(struct sw_slice value, enum sw_key_state *ret_state)
{
    if (value.len < 2 || value.ptr[0] != '"') {
        return false;
    }
    value = (struct sw_slice){value.ptr + 1, value.len - 2};
    for (size_t i = 0; i < SW_COUNTOF(state_names); i++) {
        if (sw_json_name_is(value, state_names[i])) {
            *ret_state = (enum sw_key_state)i;
            return true;
        }
    }
    return false;
}

static bool read_secret(struct sw_slice value, uint8_t secret[32])
{
    return value.len >= 2 && value.ptr[0] == '"' &&
           sw_b64url_exact((struct sw_slice){value.ptr + 1, value.len - 2}, secret, 32) == SW_OK;
}

static enum sw_err read_key(struct sw_slice text, size_t number, struct sw_key *key,
                            const char **ret_why)
{
    enum { ID = 1, STATE = 2, CREATED = 4, SECRET = 8, ALL = 15 };
    struct sw_json_iter it = sw_json_iter(text);
    struct sw_slice name, value;
    unsigned seen = 0;
    uint64_t n;

    if (sw_json_type_of(text) != SW_JSON_OBJECT) {
        return refuse(SW_E_SYNTAX, ret_why, "key ring: entry %zu of \"keys\" is no object", number);
    }
    while (sw_json_next(&it, &name, &value)) {
        if (sw_json_name_is(name, SW_S("id"))) {
            seen |= ID;
            if (!sw_slice_u64(value, &n) || n == 0 || n > UINT32_MAX) {
                return refuse(SW_E_SYNTAX, ret_why,
                              "key ring: \"id\" of key %zu must be a number from 1 to 4294967295",
                              number);
            }
            key->id = (uint32_t)n;
        } else if (sw_json_name_is(name, SW_S("state"))) {
            seen |= STATE;
            if (!read_state(value, &key->state)) {
                return refuse(SW_E_SYNTAX, ret_why,
                              "key ring: \"state\" of key %zu must be \"seed\", \"active\" or "
                              "\"retired\"",
                              number);
            }
        } else if (sw_json_name_is(name, SW_S("created"))) {
            seen |= CREATED;
            if (!sw_slice_u64(value, &n) || n > INT64_MAX) {
                return refuse(SW_E_SYNTAX, ret_why,
                              "key ring: \"created\" of key %zu must be a unix time in seconds",
                              number);
            }
            key->created_unix_s = (int64_t)n;
        } else if (sw_json_name_is(name, SW_S("secret"))) {
            seen |= SECRET;
            if (!read_secret(value, key->secret)) {
                return refuse(
                    SW_E_SYNTAX, ret_why,
                    "key ring: \"secret\" of key %zu must be 32 bytes as 43 characters of "
                    "base64url without padding",
                    number);
            }
        } else {
            return refuse(SW_E_SYNTAX, ret_why, "key ring: key %zu has the unknown member \"%.*s\"",
                          number, (int)SW_MIN(name.len, 40u), name.ptr);
        }
    }
    if (seen != ALL) {
        return refuse(SW_E_SYNTAX, ret_why,
                      "key ring: key %zu lacks one of \"id\", \"state\", \"created\", \"secret\"",
                      number);
    }
    key_derive(key);
    return SW_OK;
}

static enum sw_err read_keys(struct sw_slice text, struct sw_keyring *ring, const char **ret_why)
{
    struct sw_json_iter it = sw_json_iter(text);
    struct sw_slice name, value;
    size_t active = 0;

    if (sw_json_type_of(text) != SW_JSON_ARRAY) {
        return refuse(SW_E_SYNTAX, ret_why, "key ring: \"keys\" is no list");
    }
    while (sw_json_next(&it, &name, &value)) {
        struct sw_key *key = &ring->keys[ring->count];
        enum sw_err err;

        if (ring->count == SW_KEYS_MAX) {
            return refuse(SW_E_LIMIT, ret_why,
                          "key ring: more than %d keys; remove the oldest retired ones",
                          SW_KEYS_MAX);
        }
        err = read_key(value, ring->count + 1, key, ret_why);
        if (err != SW_OK) {
            return err;
        }
        if (sw_keyring_find(ring, key->id) != NULL) {
            return refuse(SW_E_SYNTAX, ret_why, "key ring: two keys have the id %u", key->id);
        }
        if (key->state == SW_KEY_ACTIVE) {
            ring->active = ring->count;
            active++;
        }
        ring->count++;
    }
    if (active != 1) {
        return refuse(SW_E_SYNTAX, ret_why,
                      "key ring: exactly one key must be \"active\", there are %zu", active);
    }
    return SW_OK;
}

static enum sw_err read_ring(struct sw_slice text, struct sw_keyring *ring, const char **ret_why)
{
    struct sw_json_checked checked = sw_json_check(text);
    struct sw_slice name, value, keys = {NULL, 0}, version = {NULL, 0};
    struct sw_json_iter it;

    if (checked.err != SW_OK) {
        return refuse(SW_E_SYNTAX, ret_why, "key ring: not JSON: %s at byte %zu", checked.why,
                      checked.offset);
    }
    if (checked.type != SW_JSON_OBJECT) {
        return refuse(SW_E_SYNTAX, ret_why, "key ring: the file holds no JSON object");
    }
    it = sw_json_iter(text);
    while (sw_json_next(&it, &name, &value)) {
        if (sw_json_name_is(name, SW_S("version"))) {
            version = value;
        } else if (sw_json_name_is(name, SW_S("keys"))) {
            keys = value;
        } else {
            return refuse(SW_E_SYNTAX, ret_why, "key ring: unknown member \"%.*s\"",
                          (int)SW_MIN(name.len, 40u), name.ptr);
        }
    }
    if (!sw_slice_eq(version, SW_S("1"))) {
        return refuse(SW_E_SYNTAX, ret_why,
                      "key ring: \"version\" must be 1; a file of a newer stateway needs that "
                      "stateway");
    }
    if (keys.len == 0) {
        return refuse(SW_E_SYNTAX, ret_why, "key ring: \"keys\" is missing");
    }
    return read_keys(keys, ring, ret_why);
}

enum sw_err sw_keyring_parse(struct sw_slice text, struct sw_keyring *ret_ring,
                             const char **ret_why)
{
    struct sw_keyring ring = {0};
    enum sw_err err = read_ring(text, &ring, ret_why);

    if (err == SW_OK) {
        *ret_ring = ring;
    }
    OPENSSL_cleanse(&ring, sizeof(ring));
    return err;
}

/* ---- making -----------------------------------------------------------------------------------
 */

void sw_keyring_make(int64_t now_unix_s, struct sw_keyring *ret_ring)
{
    *ret_ring = (struct sw_keyring){.count = 1};
    ret_ring->keys[0] = (struct sw_key){
        .id = 1,
        .state = SW_KEY_ACTIVE,
        .created_unix_s = SW_MAX(now_unix_s, 0),
    };
    sw_random(ret_ring->keys[0].secret, sizeof(ret_ring->keys[0].secret));
    key_derive(&ret_ring->keys[0]);
}

bool sw_keyring_put(struct sw_out *out, const struct sw_keyring *ring)
{
    SW_ASSERT(ring->count > 0);
    SW_ASSERT(ring->count <= SW_KEYS_MAX);
    sw_out_lit(out, "{\"version\":1,\"keys\":[");
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];

        sw_out_cstr(out, i > 0 ? ",\n  {\"id\":" : "\n  {\"id\":");
        sw_out_u64(out, key->id);
        sw_out_lit(out, ",\"state\":\"");
        sw_out_slice(out, state_names[key->state]);
        sw_out_lit(out, "\",\"created\":");
        sw_out_i64(out, key->created_unix_s);
        sw_out_lit(out, ",\"secret\":\"");
        sw_b64url_put(out, key->secret, sizeof(key->secret));
        sw_out_lit(out, "\"}");
    }
    sw_out_lit(out, "\n]}\n");
    return !out->overflowed;
}

const struct sw_key *sw_keyring_find(const struct sw_keyring *ring, uint32_t id)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->keys[i].id == id) {
            return &ring->keys[i];
        }
    }
    return NULL;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static void fd_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

static enum sw_err file_check(const char *path, int fd, const char **ret_why)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return refuse(SW_E_SYSTEM, ret_why, "key ring %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return refuse(SW_E_PERMISSION, ret_why, "key ring %s: no regular file", path);
    }
    if ((st.st_mode & 077) != 0) {
        return refuse(SW_E_PERMISSION, ret_why,
                      "key ring %s: mode %03o lets others at the secrets; take it away with: chmod "
                      "600 %s",
                      path, (unsigned)st.st_mode & 0777u, path);
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        return refuse(SW_E_PERMISSION, ret_why,
                      "key ring %s: belongs to user %u, stateway runs as %u", path,
                      (unsigned)st.st_uid, (unsigned)geteuid());
    }
    return SW_OK;
}

static enum sw_err file_read(const char *path, int fd, struct sw_keyring *ret_ring,
                             const char **ret_why)
{
    char text[FILE_BYTES_MAX + 1], parsed_why[sizeof(why_text)];
    size_t len = 0;
    enum sw_err err = file_check(path, fd, ret_why);

    if (err != SW_OK) {
        return err;
    }
    while (len < sizeof(text)) {
        ssize_t n = read(fd, text + len, sizeof(text) - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            OPENSSL_cleanse(text, len);
            return refuse(SW_E_SYSTEM, ret_why, "key ring %s: %s", path, strerror(errno));
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    if (len > FILE_BYTES_MAX) {
        err =
            refuse(SW_E_LIMIT, ret_why, "key ring %s: longer than %d bytes", path, FILE_BYTES_MAX);
    } else {
        err = sw_keyring_parse(sw_slice_of(text, len), ret_ring, ret_why);
        if (err != SW_OK) {
            memcpy(parsed_why, why_text, sizeof(parsed_why));
            err = refuse(err, ret_why, "%s: %s", path, parsed_why);
        }
    }
    OPENSSL_cleanse(text, len);
    return err;
}

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* The name must not be taken yet: whoever comes second uses the ring of the first. */
static bool rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return true;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return false;
    }
    /* file systems without that flag: a link never replaces either */
    return link(from, to) == 0 && unlink(from) == 0;
}

static void folder_sync(const char *path)
{
    char folder[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    SW_CLEANUP(fd_close) int fd = -1;

    memcpy(folder, slash == NULL ? "." : path, len);
    folder[len] = '\0';
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* a lost name means a new ring after a crash of the machine: tolerable */
    }
}

static enum sw_err file_make(const char *path, int64_t now_unix_s, const char **ret_why)
{
    char aside[PATH_BYTES_MAX + 32], text[FILE_BYTES_MAX];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_keyring ring;
    SW_CLEANUP(fd_close) int fd = -1;
    uint64_t nonce;
    bool ok;
    int error;

    sw_random(&nonce, sizeof(nonce));
    (void)snprintf(aside, sizeof(aside), "%s.new-%016llx", path, (unsigned long long)nonce);
    fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return refuse(errno == EACCES || errno == EPERM ? SW_E_PERMISSION : SW_E_SYSTEM, ret_why,
                      "key ring %s: cannot be made: %s; make the folder, writable for stateway",
                      path, strerror(errno));
    }
    sw_keyring_make(now_unix_s, &ring);
    ok = sw_keyring_put(&out, &ring);
    SW_ASSERT(ok);
    /* fchmod: a umask may have taken our own bits away too */
    ok = fchmod(fd, 0600) == 0 && write_all(fd, out.ptr, out.len) && fsync(fd) == 0;
    OPENSSL_cleanse(text, sizeof(text));
    OPENSSL_cleanse(&ring, sizeof(ring));
    if (ok && rename_new(aside, path)) {
        folder_sync(path);
        return SW_OK;
    }
    error = errno;
    (void)unlink(aside);
    if (ok && error == EEXIST) {
        return SW_OK; /* another process was first: its ring is read */
    }
    return refuse(SW_E_SYSTEM, ret_why, "key ring %s: cannot be written: %s", path,
                  strerror(error));
}

enum sw_err sw_keyring_load(const char *path, int64_t now_unix_s, struct sw_keyring *ret_ring,
                            const char **ret_why)
{
    enum sw_err err;

    if (strlen(path) >= PATH_BYTES_MAX) {
        return refuse(SW_E_LIMIT, ret_why, "key ring: the path is too long");
    }
    for (size_t turn = 0; turn < 3; turn++) {
        SW_CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

        if (fd >= 0) {
            return file_read(path, fd, ret_ring, ret_why);
        }
        if (errno != ENOENT) {
            return refuse(errno == EACCES ? SW_E_PERMISSION : SW_E_SYSTEM, ret_why,
                          "key ring %s: %s", path, strerror(errno));
        }
        err = file_make(path, now_unix_s, ret_why);
        if (err != SW_OK) {
            return err;
        }
    }
    return refuse(SW_E_SYSTEM, ret_why, "key ring %s: somebody keeps removing it", path);
}
