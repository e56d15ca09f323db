// Tables of all CPU kernels by name, one for each element type. native_functions.py reads them.

#include "attention.h"
#include "fused_attention.h"
#include "rows.h"
#include "triangles.h"
#include "weights.h"

struct Kernel {
    const char *name;
    void *function;
};

#define ENTRY(function) {#function, reinterpret_cast<void *>(&function)}
#define ENTRY_OF(function, Element) {#function, reinterpret_cast<void *>(&function<Element>)}
#define TABLE(Element)                                                                    \
    {                                                                                     \
        ENTRY_OF(add_to_rows, Element), ENTRY_OF(add_column_sums, Element),               \
        ENTRY_OF(add_residual, Element), ENTRY_OF(relu, Element),                         \
        ENTRY_OF(relu_backward, Element), ENTRY_OF(norm_rows, Element),                   \
        ENTRY_OF(norm_rows_backward, Element), ENTRY_OF(norm_columns, Element),           \
        ENTRY_OF(norm_columns_backward, Element), ENTRY_OF(split_heads, Element),         \
        ENTRY_OF(merge_heads, Element), ENTRY(softmax), ENTRY(softmax_backward),          \
        ENTRY_OF(gate_heads, Element), ENTRY_OF(gate_heads_backward, Element),            \
        ENTRY_OF(gate_edges, Element), ENTRY_OF(gate_edges_backward, Element),            \
        ENTRY_OF(gated_residual, Element), ENTRY_OF(gated_residual_backward, Element),    \
        ENTRY_OF(add_gated, Element), ENTRY_OF(attend_groups, Element),                   \
        ENTRY(update_weights), { nullptr, nullptr }                                       \
    }

extern "C" {
Kernel kernels_float32[] = TABLE(float);
Kernel kernels_bfloat16[] = TABLE(bfloat16);
}
