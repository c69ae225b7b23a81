/* The log of the journal store: what a crash tore is forgotten as a whole, what was damaged is told
 * and never skipped. */
#include "test_journal.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/rng.h"
#include "store/journal_priv.h"

enum { FRAMES_MAX = 64 };

/* Where the frames of a segment are. */
struct frames {
    size_t count;
    size_t at[FRAMES_MAX + 1]; /* the last: where they end */
    bool marks[FRAMES_MAX];    /* is it one? */
    uint64_t seq[FRAMES_MAX];
    uint64_t durable[FRAMES_MAX]; /* what each says was on the disk before it was written */
};

static struct frames frames_of(struct bytes b)
{
    struct journal_header h;
    struct journal_frame f;
    struct frames all = {0};
    uint32_t format;
    size_t at = JOURNAL_HEADER_BYTES;

    assert_true(b.len >= at);
    assert_int_equal(sw_journal__header_read(b.at, &h, &format), SW_OK);
    while (all.count < FRAMES_MAX &&
           sw_journal__frame_read((const char *)b.at + at, b.len - at, h.mark, &f)) {
        all.at[all.count] = at;
        all.marks[all.count] = f.count == 0;
        all.durable[all.count] = f.durable;
        all.seq[all.count++] = f.seq;
        at += f.bytes;
    }
    all.at[all.count] = at;
    return all;
}

/* A store with COMMITS commits of two records each, as a crash would leave it. */
enum { COMMITS = 6 };
struct image {
    char folder[64]; /* for copies */
    struct bytes segment;
    struct frames frames;
};
static const char first_name[] = "0000000000000001.journal";

/* The segment when nothing is done any more: behind what was synced stands a mark. */
static void image_take(struct image *im, const struct world *w, bool marked)
{
    for (size_t tries = 0; tries < 2000; tries++) {
        im->segment = file_get(w->folder, first_name);
        im->frames = frames_of(im->segment);
        assert_true(im->frames.count > 0);
        if (!marked || im->frames.marks[im->frames.count - 1]) {
            return;
        }
        free(im->segment.at);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    fail_msg("there is no mark");
}

/* As if the machine had died before the last mark was on the disk. */
static void image_unmark(struct image *im)
{
    size_t last = im->frames.count - 1;

    assert_true(im->frames.marks[last]);
    assert_false(im->frames.marks[last - 1]);
    memset(im->segment.at + im->frames.at[last], 0, im->frames.at[last + 1] - im->frames.at[last]);
    im->frames.count--;
}

static void image_make(struct image *im, enum sw_sync sync, bool orderly)
{
    size_t commits = 0;
    struct world w;

    *im = (struct image){.folder = "/tmp/sw-journal-XXXXXX"};
    assert_non_null(mkdtemp(im->folder));
    world_init(&w, &maker_journal, &(struct sw_store_options){.sync = sync});
    for (uint64_t i = 0; i < COMMITS; i++) {
        struct sw_store_commit op = {.count = 2, .now_unix_s = NOW};

        op.writes[0] = put_of(2 * i, SW_S("left"));
        op.writes[1] = put_of(2 * i + 1, SW_S("right"));
        op.writes[1].subject = SW_S("alice");
        op.writes[1].due_unix_ms = (int64_t)i + 1;
        assert_int_equal(commit(&w, &op), SW_OK);
    }
    if (orderly) {
        sw_store_close(w.store);
        w.store = NULL;
    }
    image_take(im, &w, sync == SW_SYNC_ALWAYS && !orderly);
    for (size_t i = 0; i < im->frames.count; i++) {
        commits += !im->frames.marks[i];
    }
    assert_int_equal(commits, COMMITS + orderly);
    world_fini(&w);
}

static void image_free(struct image *im)
{
    free(im->segment.at);
    folder_empty(im->folder);
    assert_int_equal(rmdir(im->folder), 0);
}

/* Opens a store that has only this segment. OK: *ret_commits are there, whole, and no more. */
static enum sw_err image_open(struct image *im, struct bytes segment, size_t *ret_commits)
{
    struct world w = {.maker = &maker_journal, .opt = {.sync = SW_SYNC_NO}};
    const char *why = "";
    enum sw_err err;
    static char block[4096];
    struct visited seen;

    folder_empty(im->folder);
    file_put(im->folder, first_name, segment);
    memcpy(w.folder, im->folder, sizeof(w.folder));
    err = maker_journal.open(&w, &why);
    if (err != SW_OK) {
        struct bytes after = file_get(im->folder, first_name);

        assert_non_null(strstr(why, "journal"));
        assert_int_equal(after.len, segment.len); /* left as it was */
        assert_memory_equal(after.at, segment.at, segment.len);
        free(after.at);
        return err;
    }
    *ret_commits = 0;
    for (uint64_t i = 0; i < COMMITS; i++) {
        bool there[2];

        for (uint64_t k = 0; k < 2; k++) {
            struct sw_store_load op = {
                .key = key_of(2 * i + k), .now_unix_s = NOW, .arena = &w.arena};

            sw_arena_init(&w.arena, block, sizeof(block));
            assert_int_equal(sw_store_load(w.store, &op), SW_STEP_DONE);
            assert_true(op.err == SW_OK || op.err == SW_E_NOT_FOUND);
            there[k] = op.err == SW_OK;
            if (there[k]) {
                assert_true(sw_slice_eq(op.record.value, k == 0 ? SW_S("left") : SW_S("right")));
            }
        }
        assert_int_equal(there[0], there[1]); /* all of a commit or nothing */
        if (there[0]) {
            assert_int_equal(*ret_commits, i); /* none is missing before it */
            (*ret_commits)++;
        }
    }
    visit(&w, SW_S("alice"), NULL, 99, NOW, &seen); /* the indexes say the same */
    assert_int_equal(seen.count, *ret_commits);
    visit_due(&w, 1000, 99, &seen);
    assert_int_equal(seen.count, *ret_commits);
    sw_store_close(w.store);
    return SW_OK;
}

static struct bytes copy_of(struct bytes b)
{
    struct bytes c = {malloc(b.len), b.len};

    assert_non_null(c.at);
    memcpy(c.at, b.at, b.len);
    return c;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void sums(void **state)
{
    static unsigned char bytes[1000];
    struct sw_rng rng;

    (void)state;
    assert_int_equal(sw_journal__crc(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(sw_journal__crc_table(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(sw_journal__crc(0, "", 0), 0);
    sw_rng_seed(&rng, 1);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)sw_rng_below(&rng, 256);
    }
    for (size_t len = 0; len < 200; len++) {
        size_t from = sw_rng_below(&rng, 800), cut = sw_rng_below(&rng, len + 1);
        uint32_t sum = sw_journal__crc(0, bytes + from, len);

        assert_int_equal(sum, sw_journal__crc_table(0, bytes + from, len));
        assert_int_equal(sum, sw_journal__crc(sw_journal__crc(0, bytes + from, cut),
                                              bytes + from + cut, len - cut));
    }
}

/* The last frame was being written: at each byte the rest is missing, or something else. */
static void torn_everywhere(void **state)
{
    struct image im;
    size_t from, end;

    (void)state;
    image_make(&im, SW_SYNC_ALWAYS, false);
    image_unmark(&im);
    from = im.frames.at[im.frames.count - 1];
    end = im.frames.at[im.frames.count];
    for (size_t cut = from; cut <= end; cut++) {
        for (int garbage = 0; garbage < 2; garbage++) {
            struct bytes b = copy_of(im.segment);
            size_t commits = 99;
            /* the frame's last bytes are padding, which is zero anyway */
            bool whole = memcmp(b.at + cut, b.at + end, end - cut) == 0 && !garbage;

            memset(b.at + cut, garbage ? 0xa5 : 0, end - cut);
            whole |= cut == end;
            assert_int_equal(image_open(&im, b, &commits), SW_OK);
            assert_int_equal(commits, whole ? COMMITS : COMMITS - 1);
            free(b.at);
        }
    }
    image_free(&im);
}

/* Says a later frame that this one was on the disk? Then it cannot be a torn end. */
static bool vouched_for(const struct frames *f, size_t frame)
{
    for (size_t i = frame + 1; i < f->count; i++) {
        if (f->durable[i] >= f->seq[frame]) {
            return true;
        }
    }
    return false;
}

static size_t commits_before(const struct frames *f, size_t frame)
{
    size_t n = 0;

    for (size_t i = 0; i < frame; i++) {
        n += !f->marks[i];
    }
    return n;
}

/* Every commit that was answered is vouched for as soon as nothing is done any more. */
static void assert_vouched(const struct frames *f, size_t unvouched_max)
{
    size_t unvouched = 0;

    for (size_t i = 0; i < f->count; i++) {
        unvouched += !f->marks[i] && !vouched_for(f, i);
    }
    assert_true(unvouched <= unvouched_max);
}

/* A byte is flipped anywhere in the frames. */
static void flipped(void **state)
{
    static const struct {
        enum sw_sync sync;
        bool orderly, unmarked;
    } rows[] = {
        {SW_SYNC_ALWAYS, false, false}, {SW_SYNC_ALWAYS, false, true},
        {SW_SYNC_ALWAYS, true, false},  {SW_SYNC_NO, false, false},
        {SW_SYNC_NO, true, false},
    };

    (void)state;
    for (size_t row = 0; row < SW_COUNTOF(rows); row++) {
        struct image im;
        struct sw_rng rng;

        sw_rng_seed(&rng, row);
        image_make(&im, rows[row].sync, rows[row].orderly);
        if (rows[row].unmarked) {
            image_unmark(&im);
        }
        if (rows[row].sync == SW_SYNC_ALWAYS && !rows[row].orderly) {
            assert_vouched(&im.frames, rows[row].unmarked ? 1 : 0);
        }
        for (size_t frame = 0; frame < im.frames.count; frame++) {
            for (size_t at = im.frames.at[frame]; at < im.frames.at[frame + 1];
                 at += at < im.frames.at[frame] + JOURNAL_FRAME_HEAD ? (row == 0 ? 1 : 7)
                                                                     : (row == 0 ? 7 : 47)) {
                struct bytes b = copy_of(im.segment);
                size_t commits = 99;
                enum sw_err err;

                b.at[at] ^= (unsigned char)(1u << sw_rng_below(&rng, 8));
                err = image_open(&im, b, &commits);
                /* the last frame of an orderly end, END, speaks for all, and must be there */
                if (rows[row].orderly || vouched_for(&im.frames, frame)) {
                    assert_int_equal(err, SW_E_STORE_CORRUPT);
                } else { /* a torn end looks like this */
                    assert_int_equal(err, SW_OK);
                    assert_int_equal(commits, commits_before(&im.frames, frame));
                }
                free(b.at);
            }
        }
        image_free(&im);
    }
}

/* ... or in the header, or in the zeros behind. */
static void flipped_elsewhere(void **state)
{
    struct image im;
    size_t commits;

    (void)state;
    image_make(&im, SW_SYNC_ALWAYS, false);
    for (size_t at = 0; at < JOURNAL_HEADER_BYTES; at += at < 96 ? 1 : 571) {
        struct bytes b = copy_of(im.segment);

        b.at[at] ^= 4;
        assert_int_equal(image_open(&im, b, &commits), SW_E_STORE_CORRUPT);
        free(b.at);
    }
    for (size_t at = im.frames.at[im.frames.count]; at < im.segment.len; at += 99991) {
        struct bytes b = copy_of(im.segment);

        b.at[at] ^= 4;
        assert_int_equal(image_open(&im, b, &commits), SW_OK);
        assert_int_equal(commits, COMMITS);
        free(b.at);
    }
    image_free(&im);
}

static void cut_files(void **state)
{
    static const bool orderly[] = {false, true};

    (void)state;
    for (size_t row = 0; row < SW_COUNTOF(orderly); row++) {
        struct image im;

        image_make(&im, SW_SYNC_ALWAYS, orderly[row]);
        for (size_t len = im.segment.len; len > 0; len -= SW_MIN(len, len > 8192 ? 50021 : 97)) {
            struct bytes b = {im.segment.at, len};
            size_t commits = 99;
            enum sw_err err = image_open(&im, b, &commits);

            if (len == im.segment.len) {
                assert_int_equal(err, SW_OK);
                assert_int_equal(commits, COMMITS);
            } else {
                assert_int_equal(err, SW_E_STORE_CORRUPT);
            }
        }
        {
            size_t commits;

            assert_int_equal(image_open(&im, (struct bytes){im.segment.at, 0}, &commits),
                             SW_E_STORE_CORRUPT);
        }
        image_free(&im);
    }
}

/* Some commits, a new start in between each: several segments. */
static void segments_make(struct world *w, size_t starts)
{
    world_init(w, &maker_journal, &(struct sw_store_options){.sync = SW_SYNC_ALWAYS});
    for (uint64_t i = 0; i < starts; i++) {
        assert_int_equal(write_one(w, put_of(i, SW_S("v")), NOW, NULL), SW_OK);
        if (i + 1 < starts) {
            world_reopen(w);
        }
    }
}

static enum sw_err open_again(struct world *w, const char **ret_why)
{
    enum sw_err err = maker_journal.open(w, ret_why);

    if (err == SW_OK) {
        sw_store_close(w->store);
    }
    w->store = NULL;
    return err;
}

/* A segment before the last one: nothing in it may be wrong, or missing. */
static void damage_before_the_end(void **state)
{
    const char *why = "";
    struct world w;

    (void)state;
    segments_make(&w, 5);
    sw_store_close(w.store);
    w.store = NULL;
    for (uint64_t n = 1; n <= 4; n++) {
        char name[JOURNAL_NAME_BYTES], away[600];
        struct bytes b, bad;
        struct frames f;

        sw_journal__segment_name(name, n);
        b = file_get(w.folder, name);
        f = frames_of(b);
        for (size_t at = f.at[0]; at < f.at[f.count]; at += 5) {
            bad = copy_of(b);
            bad.at[at] ^= 1;
            file_put(w.folder, name, bad);
            assert_int_equal(open_again(&w, &why), SW_E_STORE_CORRUPT);
            assert_non_null(strstr(why, name)); /* the place is told */
            assert_non_null(strstr(why, "backup"));
            free(bad.at);
        }
        (void)snprintf(away, sizeof(away), "%s/away", w.folder);
        assert_int_equal(rename(world_file(&w, name), away), 0);
        assert_int_equal(open_again(&w, &why), SW_E_STORE_CORRUPT);
        assert_non_null(strstr(why, name));
        assert_int_equal(unlink(away), 0);
        file_put(w.folder, name, b);
        free(b.at);
    }
    assert_int_equal(maker_journal.open(&w, &why), SW_OK);
    for (uint64_t i = 0; i < 5; i++) {
        assert_value(&w, i, NOW, SW_S("v"));
    }
    world_fini(&w);
}

/* A torn end that an earlier start found stays torn, also when a later segment follows. */
static void torn_end_stays_void(void **state)
{
    struct image im;
    struct world w = {.maker = &maker_journal, .opt = {.sync = SW_SYNC_ALWAYS}};
    struct bytes torn, segment;
    const char *why = "";

    (void)state;
    image_make(&im, SW_SYNC_ALWAYS, false);
    image_unmark(&im);
    torn = copy_of(im.segment);
    torn.at[im.frames.at[im.frames.count - 1] + 40] ^= 1;
    file_put(im.folder, first_name, torn);
    memcpy(w.folder, im.folder, sizeof(w.folder));
    w.loop = loop_new();
    w.block = malloc(4u << 20);
    assert_int_equal(maker_journal.open(&w, &why), SW_OK);
    assert_int_equal(write_one(&w, put_of(1000, SW_S("later")), NOW, NULL), SW_OK);
    sw_store_close(w.store);
    /* the disk shows the frame after all */
    file_put(im.folder, first_name, im.segment);
    assert_int_equal(maker_journal.open(&w, &why), SW_OK);
    assert_int_equal(load(&w, 2 * (COMMITS - 1), NOW, NULL), SW_E_NOT_FOUND);
    assert_value(&w, 2 * (COMMITS - 2), NOW, SW_S("left"));
    assert_value(&w, 1000, NOW, SW_S("later"));
    sw_store_close(w.store);
    w.store = NULL;
    /* a segment of another store does not pass as ours */
    segment = file_get(im.folder, "0000000000000002.journal");
    image_free(&im);
    image_make(&im, SW_SYNC_ALWAYS, false);
    file_put(im.folder, first_name, im.segment);
    file_put(im.folder, "0000000000000002.journal", segment);
    memcpy(w.folder, im.folder, sizeof(w.folder));
    assert_int_equal(open_again(&w, &why), SW_E_STORE_CORRUPT);
    assert_non_null(strstr(why, "another store"));
    free(segment.at);
    free(torn.at);
    free(w.block);
    sw_loop_free(w.loop);
    image_free(&im);
}

static size_t segment_count(const struct world *w)
{
    DIR *dir = opendir(w->folder);
    struct dirent *e;
    size_t count = 0;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        count += is_segment(e->d_name);
    }
    closedir(dir);
    return count;
}

/* Starts without a commit leave no files; many with one are brought together. */
static void many_starts(void **state)
{
    struct world w;
    size_t count;

    (void)state;
    segments_make(&w, 2);
    count = segment_count(&w);
    for (size_t i = 0; i < 10; i++) {
        world_reopen(&w);
    }
    assert_true(segment_count(&w) <= count + 1);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(write_one(&w, put_of(i, SW_S("w")), NOW, NULL), SW_OK);
        world_reopen(&w);
    }
    for (size_t i = 0; i < 500 && segment_count(&w) > 70; i++) {
        struct timespec ts = {0, 10000000};

        nanosleep(&ts, NULL);
    }
    assert_true(segment_count(&w) <= 70);
    world_reopen(&w);
    for (uint64_t i = 0; i < 100; i++) {
        assert_value(&w, i, NOW, SW_S("w"));
    }
    world_fini(&w);
}

static void refused(void **state)
{
    struct world w;
    struct sw_store *second;
    const char *why = "";
    unsigned char head[JOURNAL_HEADER_BYTES];
    struct bytes b;
    uint32_t next = 2;

    (void)state;
    segments_make(&w, 1);
    assert_int_equal(sw_store_open_journal(&w.opt, &second, &why), SW_E_STORE_LOCKED);
    assert_non_null(strstr(why, "process"));
    sw_store_close(w.store);
    w.store = NULL;
    /* a format that comes later */
    b = file_get(w.folder, first_name);
    memcpy(head, b.at, sizeof(head));
    memcpy(b.at + 16, &next, sizeof(next));
    next = sw_journal__crc(0, b.at, sizeof(head) - 4);
    memcpy(b.at + sizeof(head) - 4, &next, sizeof(next));
    file_put(w.folder, first_name, b);
    assert_int_equal(open_again(&w, &why), SW_E_STORE_FORMAT);
    assert_non_null(strstr(why, "format 2"));
    memcpy(b.at, head, sizeof(head));
    file_put(w.folder, first_name, b);
    /* an LMDB store lives there */
    file_put(w.folder, "data.mdb", (struct bytes){head, 10});
    assert_int_equal(open_again(&w, &why), SW_E_STORE_FORMAT);
    assert_non_null(strstr(why, "lmdb"));
    assert_int_equal(unlink(world_file(&w, "data.mdb")), 0);
    /* no path, no folder above */
    w.opt.path = SW_S("");
    assert_int_equal(sw_store_open_journal(&w.opt, &second, &why), SW_E_LIMIT);
    w.opt.path = SW_S("/tmp/sw-there-is-no-such-folder/store");
    assert_int_equal(sw_store_open_journal(&w.opt, &second, &why), SW_E_STORE_IO);
    assert_non_null(strstr(why, "folder above"));
    /* what is no segment is not looked at */
    file_put(w.folder, "0000000000000001.journal.bak", b);
    file_put(w.folder, "1.journal", b);
    file_put(w.folder, "spare", b); /* left by a crash */
    free(b.at);
    assert_int_equal(maker_journal.open(&w, &why), SW_OK);
    assert_value(&w, 0, NOW, SW_S("v"));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums),
        cmocka_unit_test(torn_everywhere),
        cmocka_unit_test(flipped),
        cmocka_unit_test(flipped_elsewhere),
        cmocka_unit_test(cut_files),
        cmocka_unit_test(damage_before_the_end),
        cmocka_unit_test(torn_end_stays_void),
        cmocka_unit_test(many_starts),
        cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
