/* base/list.h - a circular doubly linked list whose links live in the elements. */
#ifndef SW_LIST_H
#define SW_LIST_H

#include "base/base.h"

struct sw_link {
    struct sw_link *next, *prev; /* both NULL: not in a list */
};

static inline void sw_list_init(struct sw_link *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool sw_list_empty(const struct sw_link *head)
{
    return head->next == head;
}

static inline bool sw_link_linked(const struct sw_link *l)
{
    return l->next != NULL;
}

static inline void sw_list_push_back(struct sw_link *head, struct sw_link *l)
{
    SW_ASSERT(l->next == NULL);
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

static inline void sw_list_push_front(struct sw_link *head, struct sw_link *l)
{
    SW_ASSERT(l->next == NULL);
    l->next = head->next;
    l->prev = head;
    head->next->prev = l;
    head->next = l;
}

/* Taking out what is in no list is allowed and does nothing. */
static inline void sw_link_remove(struct sw_link *l)
{
    if (l->next != NULL) {
        l->prev->next = l->next;
        l->next->prev = l->prev;
        l->next = NULL;
        l->prev = NULL;
    }
}

/* The first element, taken out; NULL when empty. */
static inline struct sw_link *sw_list_pop_front(struct sw_link *head)
{
    struct sw_link *l = head->next;

    if (l == head) {
        return NULL;
    }
    sw_link_remove(l);
    return l;
}

#endif
