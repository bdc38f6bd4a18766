// Which files the box decoder takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/header.hpp"

namespace fl {

constexpr int kMaxBlocksPerMcu = 6;  // 2x2 luma and two chroma

inline Status decodable_frame(const Header& header) {
    const Frame& frame = header.frame;
    if (frame.marker == kSOF2) return kProgressive;
    if (frame.marker != kSOF0 && frame.marker != kSOF1) return kOtherProcess;
    if (frame.precision != 8) return kPrecision;
    if (frame.num_components != 1 && frame.num_components != 3) return kComponents;
    if (frame.height == 0) return kUndefinedHeight;
    if (frame.num_components == 3) {
        if (!is_ycbcr(header)) return kColourSpace;
        const Component* c = frame.components;
        if (c[0].h > 2 || c[0].v > 2) return kSampling;
        for (int i = 1; i < 3; ++i)
            if (c[i].h != 1 || c[i].v != 1) return kSampling;
    }
    return kOk;
}

inline Status decodable_scan(const Header& header) {
    const Frame& frame = header.frame;
    const Scan& scan = header.scan;
    if (scan.num_components != frame.num_components) return kMultipleScans;
    // Ss, Se, Ah and Al are not looked at: libjpeg ignores them in a sequential frame as well.
    for (int i = 0; i < scan.num_components; ++i) {
        const ScanComponent& component = scan.components[i];
        if (component.component != i) return kBadScan;
        if (!header.dc[component.dc].defined || !header.ac[component.ac].defined)
            return kStandardTables;
        if (!header.quant[frame.components[i].quant].defined) return kMissingTable;
    }
    return kOk;
}

// Reads the header and refuses what the box decoder does not take.
inline Status read_decodable(const uint8_t* data, size_t size, Header& header) {
    Cursor cursor;
    const Status read = read_header(data, size, cursor, header);
    if (header.frame.marker != 0)  // the kind of file is said before any damage
        if (const Status status = decodable_frame(header)) return status;
    if (read) return read;
    if (const Status status = decodable_scan(header)) return status;
    Frame& frame = header.frame;
    // One component is not interleaved: its sampling factors then mean nothing (A.2.2).
    if (frame.num_components == 1)
        frame.components[0].h = frame.components[0].v = frame.max_h = frame.max_v = 1;
    const int64_t mcus =
        int64_t{divide_up(frame.width, 8 * frame.max_h)} * divide_up(frame.height, 8 * frame.max_v);
    int blocks_per_mcu = 0;
    for (int i = 0; i < frame.num_components; ++i)
        blocks_per_mcu += frame.components[i].h * frame.components[i].v;
    // A block takes two bits at least: a code each for DC and for the end of block.
    const size_t bytes = size - header.scan.data_offset;
    return mcus * blocks_per_mcu / 4 > int64_t(bytes) ? kTooFewBytes : kOk;
}

}  // namespace fl
