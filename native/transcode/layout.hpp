// Where the blocks of an image stand: components, MCUs, and the order in which a scan visits them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/header.hpp"

namespace fl {

constexpr int kMaxBlocks = 10;  // of one MCU (T.81, B.2.3)

// Blocks of one component. `columns` and `rows` hold the picture (T.81, A.1.1 and A.2.2); `stride`
// and `padded_rows` complete the MCUs of an interleaved scan.
struct ComponentLayout {
    int h, v;
    int columns, rows;
    int stride, padded_rows;
};

struct Layout {
    int height, width;
    int num_components;
    ComponentLayout components[4];
    int mcu_height, mcu_width;  // in pixels
    int mcu_rows, mcu_columns;
};

inline Layout make_layout(int height, int width, int num_components, const int* h, const int* v) {
    Layout layout = {};
    layout.height = height;
    layout.width = width;
    layout.num_components = num_components;
    int max_h = 1, max_v = 1;
    for (int i = 0; i < num_components; ++i) {
        if (h[i] > max_h) max_h = h[i];
        if (v[i] > max_v) max_v = v[i];
    }
    layout.mcu_height = 8 * max_v;
    layout.mcu_width = 8 * max_h;
    layout.mcu_rows = divide_up(height, layout.mcu_height);
    layout.mcu_columns = divide_up(width, layout.mcu_width);
    for (int i = 0; i < num_components; ++i) {
        ComponentLayout& component = layout.components[i];
        component.h = h[i];
        component.v = v[i];
        component.columns = divide_up(divide_up(width * h[i], max_h), 8);
        component.rows = divide_up(divide_up(height * v[i], max_v), 8);
        component.stride = layout.mcu_columns * h[i];
        component.padded_rows = layout.mcu_rows * v[i];
    }
    return layout;
}

// A single component has no MCUs of several blocks, whatever its factors say (T.81, A.2.2).
inline Layout layout_of(const Frame& frame) {
    int h[4], v[4];
    for (int i = 0; i < frame.num_components; ++i) {
        h[i] = frame.num_components == 1 ? 1 : frame.components[i].h;
        v[i] = frame.num_components == 1 ? 1 : frame.components[i].v;
    }
    return make_layout(frame.height, frame.width, frame.num_components, h, v);
}

// How one scan visits blocks: MCU by MCU, and within an MCU block by block (T.81, A.2).
struct Visit {
    int mcu_rows, mcu_columns;
    int blocks;  // of one MCU, at most kMaxBlocks
    struct Block {
        uint8_t component;    // of the frame
        uint8_t slot;         // component of the scan
        uint8_t row, column;  // within the MCU
    } block[kMaxBlocks];
    uint8_t step_rows[4], step_columns[4];  // blocks from MCU to MCU, of each component

    size_t mcus() const { return size_t(mcu_rows) * size_t(mcu_columns); }
};

inline Status visit_of(const Layout& layout, const Scan& scan, Visit& visit) {
    visit = {};
    if (scan.num_components == 1) {
        const uint8_t index = scan.components[0].component;
        visit.mcu_rows = layout.components[index].rows;
        visit.mcu_columns = layout.components[index].columns;
        visit.blocks = 1;
        visit.block[0] = {index, 0, 0, 0};
        visit.step_rows[index] = visit.step_columns[index] = 1;
        return kOk;
    }
    visit.mcu_rows = layout.mcu_rows;
    visit.mcu_columns = layout.mcu_columns;
    for (uint8_t slot = 0; slot < scan.num_components; ++slot) {
        const uint8_t index = scan.components[slot].component;
        const ComponentLayout& component = layout.components[index];
        visit.step_rows[index] = static_cast<uint8_t>(component.v);
        visit.step_columns[index] = static_cast<uint8_t>(component.h);
        for (uint8_t row = 0; row < component.v; ++row)
            for (uint8_t column = 0; column < component.h; ++column) {
                if (visit.blocks == kMaxBlocks) return kBadScan;
                visit.block[visit.blocks++] = {index, slot, row, column};
            }
    }
    return kOk;
}

}  // namespace fl
