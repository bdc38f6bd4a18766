// What a file is, whether it is whole, and if not, why: the results of a check or of transcoding
// as they cross the C ABI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "core/status.hpp"
#include "transcode/picture.hpp"
#include "transcode/transcode.hpp"

namespace fl {

// fastload/pixels/native.py mirrors it.
struct Facts {
    int32_t status;
    int32_t height, width;  // transcoded: as stored; checked: as in the file; 0 if unknown
    int32_t num_components;
    int32_t sampling[8];  // horizontal, vertical of each component, as in the file
    int32_t progressive;
    int32_t restart_interval;
    uint64_t size;
    uint8_t* bytes;
    char reason[128];
};

// One sentence: what is wrong, and where.
inline void describe(Status status, const Place& place, char* text, size_t size) {
    const char* const what = reason(status);
    if (place.mcus == 0 || !is_corrupt(status))
        std::snprintf(text, size, "%s", what);
    else if (place.scan > 1)
        std::snprintf(text, size, "%s (at MCU %zu of %zu of scan %d)", what, place.mcu, place.mcus,
                      place.scan);
    else
        std::snprintf(text, size, "%s (at MCU %zu of %zu)", what, place.mcu, place.mcus);
}

inline void report(Status status, const Header& header, bool progressive, const Place& place,
                   Facts& facts) {
    const Frame& frame = header.frame;
    facts.status = status;
    facts.num_components = frame.marker ? frame.num_components : 0;
    facts.progressive = progressive;
    for (int i = 0; i < facts.num_components; ++i) {
        facts.sampling[2 * i] = frame.components[i].h;
        facts.sampling[2 * i + 1] = frame.components[i].v;
    }
    describe(status, place, facts.reason, sizeof facts.reason);
}

inline void report(Status status, const Picture& picture, Facts& facts) {
    report(status, picture.header, picture.progressive, picture.place, facts);
}

inline Status check_file(const uint8_t* data, size_t size, TranscodeWorkspace& work, Facts& facts) {
    facts = {};
    Picture picture(work);
    Status status = picture.open(data, size);
    if (status == kOk) status = picture.check();
    work.trim();
    report(status, picture, facts);
    if (facts.num_components) {
        facts.height = picture.header.frame.height;
        facts.width = picture.header.frame.width;
    }
    facts.restart_interval = picture.header.restart_interval;
    return status;
}

// On success facts.bytes is from malloc.
inline Status transcode_file(const uint8_t* data, size_t size, const TranscodeOptions& options,
                             TranscodeWorkspace& work, Facts& facts) {
    facts = {};
    Picture picture(work);
    Transcoded result = {};
    const Status status = transcode(data, size, options, work, picture, result);
    work.trim();
    report(status, picture, facts);
    facts.height = result.height;
    facts.width = result.width;
    facts.restart_interval = result.restart_interval;
    facts.size = result.size;
    facts.bytes = result.bytes;
    return status;
}

}  // namespace fl
