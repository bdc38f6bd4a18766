// Which MCUs a box needs, and what their blocks become: arithmetic on the frame header alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/header.hpp"
#include "decode/intervals.hpp"

namespace fl {

struct Box {  // in pixels of the whole picture
    int top, left, height, width;
};

// The part of a box that becomes the output, in pixels from the box's corner. The filter reads the
// pixels around it too, as far as the box reaches.
struct Window {
    double top, left, height, width;
};

inline Window all_of(const Box& box) {
    return {0, 0, static_cast<double>(box.height), static_cast<double>(box.width)};
}

// A millionth of a pixel is rounding. False for what is no number.
inline bool lies_inside(const Window& window, const Box& box) {
    constexpr double kRounding = 1e-6;
    return window.height > 0 && window.width > 0 && window.top >= -kRounding &&
           window.left >= -kRounding && window.top + window.height <= box.height + kRounding &&
           window.left + window.width <= box.width + kRounding;
}

inline bool lies_inside(const Box& box, const Frame& frame) {
    return box.top >= 0 && box.left >= 0 && box.height >= 1 && box.width >= 1 &&
           box.height <= frame.height - box.top && box.width <= frame.width - box.left;
}

// Where the samples of one component lie in an MCU and in its plane.
struct SampleLayout {
    int h, v;          // blocks in an MCU
    int block_size;    // samples a block becomes, in each direction: 8 or 4
    int first_block;   // within the MCU
    uint8_t* plane;    // sample (0, 0) of the decoded region
    ptrdiff_t stride;  // from column to column
};

struct Geometry {
    McuBox mcus;  // to decode
    int num_components, blocks_per_mcu;
    int block_size;  // of luma
    SampleLayout components[3];
    bool up_h, up_v;                  // chroma is interpolated or repeated in this direction
    bool fancy;                       // interpolated
    int chroma_width, chroma_height;  // of the whole picture, in samples

    // Of the first decoded luma sample, in luma samples of the whole picture.
    int left() const { return mcus.column_begin * components[0].h * block_size; }
    int top() const { return mcus.row_begin * components[0].v * block_size; }
    int columns() const { return mcus.column_end - mcus.column_begin; }
    int rows() const { return mcus.row_end - mcus.row_begin; }
};

// The MCUs that the box touches, and that chroma interpolation at its edges touches.
inline McuBox covering_mcus(const Frame& frame, const Box& box, int margin_h, int margin_v) {
    const int mcu_width = 8 * frame.max_h, mcu_height = 8 * frame.max_v;
    const int per_row = divide_up(frame.width, mcu_width);
    const int rows = divide_up(frame.height, mcu_height);
    const auto low = [](int value) { return value < 0 ? 0 : value; };
    const auto high = [](int value, int limit) { return value > limit ? limit : value; };
    return {low(box.top - margin_v) / mcu_height,
            high(divide_up(box.top + box.height + margin_v, mcu_height), rows),
            low(box.left - margin_h) / mcu_width,
            high(divide_up(box.left + box.width + margin_h, mcu_width), per_row),
            per_row,
            per_row * rows};
}

// `planes` and strides are left to whoever allocates.
inline Geometry geometry_of(const Frame& frame, const Box& box, int block_size) {
    Geometry geometry = {};
    geometry.num_components = frame.num_components;
    geometry.block_size = block_size;
    for (int i = 0; i < frame.num_components; ++i) {
        const Component& from = frame.components[i];
        geometry.components[i] = {from.h, from.v, block_size, geometry.blocks_per_mcu, nullptr, 0};
        geometry.blocks_per_mcu += from.h * from.v;
    }
    const bool grey = frame.num_components == 1;
    // As libjpeg does: chroma halved both ways keeps what luma loses (jdmaster.c).
    const bool caught_up = !grey && frame.max_h == 2 && frame.max_v == 2 && block_size < 8;
    if (caught_up)
        geometry.components[1].block_size = geometry.components[2].block_size = 2 * block_size;
    geometry.up_h = !grey && frame.max_h == 2 && !caught_up;
    geometry.up_v = !grey && frame.max_v == 2 && !caught_up;
    const int chroma = grey ? 8 : geometry.components[1].block_size;
    geometry.chroma_width = divide_up(frame.width * chroma, 8 * frame.max_h);
    geometry.chroma_height = divide_up(frame.height * chroma, 8 * frame.max_v);
    // jdsample.c: too narrow a picture has its chroma repeated.
    geometry.fancy = geometry.chroma_width > 2 || !geometry.up_h;
    // Chroma interpolation looks one chroma sample beyond the box.
    geometry.mcus = covering_mcus(frame, box, geometry.up_h ? 16 / block_size : 0,
                                  geometry.up_v ? 16 / block_size : 0);
    return geometry;
}

}  // namespace fl
