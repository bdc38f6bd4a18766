// Which files the box decoder takes.
#pragma once

#include "core/header.hpp"

namespace fl {

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

}  // namespace fl
