// The shape of the file that is stored: its size, sampling factors and restart interval.
#pragma once

#include "core/header.hpp"
#include "transcode/layout.hpp"
#include "transcode/orient.hpp"

namespace fl {

// The restart interval in MCUs for a usual width of `pixels`; 0: no restart markers; below 0: the
// width is chosen. The rule, its reason and its measurement stand in fastload/pixels/jpeg.py at
// `restart_interval_for`, which tests compare with this function.
inline int restart_interval_for(const Layout& layout, int pixels) {
    if (pixels == 0) return 0;
    if (pixels < 0) pixels = layout.mcu_width == 8 ? 64 : 96;
    const int least = pixels / 2 / layout.mcu_width, usual = pixels / layout.mcu_width;
    const int greatest = pixels * 3 / 2 / layout.mcu_width, row = layout.mcu_columns;
    if (row <= usual) return row;
    for (int interval = greatest; interval >= least && interval > 0; --interval)
        if (row % interval == 0) return interval;
    return usual > 0 ? usual : 1;
}

// Divides the factors by their greatest common divisor.
inline void reduce(int* factors, int count) {
    for (int divisor = 4; divisor > 1; --divisor) {
        bool common = true;
        for (int i = 0; i < count; ++i) common = common && factors[i] % divisor == 0;
        for (int i = 0; i < count && common; ++i) factors[i] /= divisor;
    }
}

// The layout of the picture as stored: turned, its sampling factors without a common divisor.
// kSampling unless luma has factors of 1 or 2 and chroma of 1: this core would not decode others.
inline Status stored_layout(const Layout& read, Orientation orientation, Layout& stored) {
    int h[4], v[4];
    for (int i = 0; i < read.num_components; ++i) {
        h[i] = orientation.transpose ? read.components[i].v : read.components[i].h;
        v[i] = orientation.transpose ? read.components[i].h : read.components[i].v;
    }
    for (int* const factors : {h, v}) {
        reduce(factors, read.num_components);
        for (int i = 0; i < read.num_components; ++i)
            if (factors[i] > (i == 0 ? 2 : 1)) return kSampling;
    }
    const int height = orientation.transpose ? read.width : read.height;
    const int width = orientation.transpose ? read.height : read.width;
    stored = make_layout(height, width, read.num_components, h, v);
    return kOk;
}

// An axis can be mirrored where the picture fills its last MCU.
inline bool aligned(const Layout& stored, Orientation orientation) {
    return !(orientation.mirror_columns && stored.width % stored.mcu_width) &&
           !(orientation.mirror_rows && stored.height % stored.mcu_height);
}

// Whether a sound file of that header can be stored losslessly, and with which layout.
inline Status storable(const Header& header, const Layout& read, Orientation orientation,
                       Layout& stored) {
    if (header.frame.num_components != 1 && header.frame.num_components != 3) return kComponents;
    if (header.frame.num_components == 3 && !is_ycbcr(header)) return kColourSpace;
    if (const Status status = stored_layout(read, orientation, stored)) return status;
    return aligned(stored, orientation) ? kOk : kUnalignedOrientation;
}

// Whether the scan can stay as it is: the same blocks in the same order.
inline bool same_blocks(const Layout& read, const Layout& stored, Orientation orientation) {
    if (!orientation.identity()) return false;
    for (int i = 0; i < stored.num_components; ++i)
        if (stored.components[i].h != read.components[i].h ||
            stored.components[i].v != read.components[i].v)
            return false;
    return true;
}

}  // namespace fl
