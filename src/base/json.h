/* base/json.h - states as JSON text: checked, compacted, merged, without ever reading a number.
 *
 * A DOM library rounds numbers (1e400, 1.10, 20 digits) and forgets their text; a state must come
 * back as it was written. So these work on text: strict RFC 8259, no duplicate names (compared
 * after unescaping), depth at most SW_JSON_DEPTH_MAX, valid UTF-8, no lone surrogates, no BOM;
 * \u0000 is allowed. Pure. Stack use is bounded: about 100 KiB in check, by the depth in merge.
 */
#ifndef SW_JSON_H
#define SW_JSON_H

#include "base/err.h"
#include "base/out.h"

struct sw_arena;

#define SW_JSON_DEPTH_MAX   64
#define SW_JSON_MEMBERS_MAX 4096 /* members of one object, for the duplicate check */
#define SW_JSON_OPEN_MAX    8192 /* members seen so far of all objects that enclose one place */

enum sw_json_type {
    SW_JSON_OBJECT,
    SW_JSON_ARRAY,
    SW_JSON_STRING,
    SW_JSON_NUMBER,
    SW_JSON_BOOL,
    SW_JSON_NULL,
};

struct sw_json_checked {
    enum sw_err err;        /* SW_OK, SW_E_UPDATE_JSON (syntax, depth, duplicate) */
    size_t offset;          /* of the first offending byte; text.len: it ended too early */
    const char *why;        /* static text: "duplicate name", "depth", ... */
    enum sw_json_type type; /* of the whole text, when SW_OK */
};

/* Is text one JSON value and nothing else? */
SW_MUST struct sw_json_checked sw_json_check(struct sw_slice text);

/* Writes text (already checked) without white space and with every character outside 0x20..0x7e
 * as \uXXXX: safe in a header. Numbers and ASCII strings keep their spelling. False: no room.
 * Compact text comes out as it went in. The result may be longer than text (2 bytes become 6). */
SW_MUST bool sw_json_compact(struct sw_slice text, struct sw_out *out);

/* RFC 7396: target and patch are checked texts; the result is compact ASCII. An empty target
 * stands for "no state". Members keep the target's order; new ones follow in the patch's order.
 * SW_E_LIMIT: no room in out, or the result has more members than sw_json_check accepts; out is
 * then not to be used. SW_E_NO_MEMORY: scratch is too small: it holds a table of 24 bytes a member
 * of the patch while merge runs, and is given back. */
SW_MUST enum sw_err sw_json_merge(struct sw_slice target, struct sw_slice patch, struct sw_out *out,
                                  struct sw_arena *scratch);

/* Appends text as a JSON string with quotes, in ASCII; bytes that are not UTF-8 become U+FFFD. */
void sw_json_quote(struct sw_out *out, struct sw_slice text);

/* ---- looking into a checked text, member by member ------------------------------------------- */

/* Of one value of a checked text (no white space around it is needed). */
enum sw_json_type sw_json_type_of(struct sw_slice value);

struct sw_json_iter {
    const char *at, *end;
    bool object;
};
/* Begins at an object or an array; of anything else nothing comes. */
struct sw_json_iter sw_json_iter(struct sw_slice value);
/* The next member: *ret_name is the name's text between its quotes, still escaped (empty in an
 * array); *ret_value the value's text without white space around it. False: no more. Work is in
 * proportion to the value's length. */
SW_MUST bool sw_json_next(struct sw_json_iter *it, struct sw_slice *ret_name,
                          struct sw_slice *ret_value);
/* Is this (escaped) name, or the inside of a string, the same as the plain text? */
bool sw_json_name_is(struct sw_slice name, struct sw_slice plain);
/* The member of that name in an object; false: none, or value is no object. */
SW_MUST bool sw_json_get(struct sw_slice value, struct sw_slice name, struct sw_slice *ret_value);
/* The characters of a string value as UTF-8, appended to out. False: no string, or no room. */
SW_MUST bool sw_json_unquote(struct sw_slice value, struct sw_out *out);

#endif
