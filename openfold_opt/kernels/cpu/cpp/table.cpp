// All loops by name, for loops.py: one table for each type of elements.

#include "attention.h"
#include "rows.h"
#include "triangles.h"
#include "weights.h"

struct Loop {
    const char *name;
    void *function;
};

#define ENTRY(function) {#function, reinterpret_cast<void *>(&function)}
#define ENTRY_OF(function, Element) {#function, reinterpret_cast<void *>(&function<Element>)}
#define TABLE(Element)                                                                                                            \
    {                                                                                                                             \
        ENTRY_OF(add_to_rows, Element), ENTRY_OF(add_column_sums, Element), ENTRY_OF(add_residual, Element),                      \
        ENTRY_OF(relu, Element), ENTRY_OF(relu_backward, Element), ENTRY_OF(norm_rows, Element),                                  \
        ENTRY_OF(norm_rows_backward, Element), ENTRY_OF(norm_columns, Element), ENTRY_OF(norm_columns_backward, Element),         \
        ENTRY_OF(split_heads, Element), ENTRY_OF(merge_heads, Element), ENTRY(softmax), ENTRY(softmax_backward),                  \
        ENTRY_OF(gate_heads, Element), ENTRY_OF(gate_heads_backward, Element), ENTRY_OF(open_edges, Element),                     \
        ENTRY_OF(open_edges_backward, Element), ENTRY_OF(gated_residual, Element), ENTRY_OF(gated_residual_backward, Element),    \
        ENTRY(update_weights), { nullptr, nullptr }                                                                               \
    }

extern "C" {
Loop loops_of_float32[] = TABLE(float);
Loop loops_of_bfloat16[] = TABLE(bfloat16);
}
