// JPEG to the JPEG that is stored: the same coefficients, baseline, one scan, optimal Huffman
// tables, restart markers, no metadata, upright.
//
// What remains of the header is JFIF's APP0, which makes every decoder read the components as
// YCbCr. An ICC profile is dropped like all else: no decoder of training pixels applies it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "transcode/bit_writer.hpp"
#include "transcode/codes.hpp"
#include "transcode/header_writer.hpp"
#include "transcode/pack.hpp"
#include "transcode/picture.hpp"
#include "transcode/stored.hpp"

namespace fl {

struct TranscodeOptions {
    int interval_pixels;  // usual width of a restart interval; 0: no restart markers; -1: chosen
    bool smallest;        // the smallest file, not the one that decodes fastest
    int orientation;      // how to turn the picture: a value of EXIF's, in [1, 8]; 1: as it is
};

struct Transcoded {
    uint8_t* bytes;  // from malloc
    size_t size;
    int height, width;
    int restart_interval;
};

// Writes the file: sets `bytes` and `size` of `result`.
inline Status write_picture(const Picture& picture, const Layout& stored, Orientation orientation,
                            const TokenStream& stream, bool smallest, Transcoded& result) {
    if (stream.num_tokens > UINT32_MAX) return kTooLarge;
    uint32_t frequency[kKeys] = {};
    const Token* const tokens = stream.tokens.data();
    for (size_t i = 0; i < stream.num_tokens; ++i) ++frequency[tokens[i] & (kKeys - 1)];
    HuffmanSpec specs[kTokenTables] = {};
    Emit emit[kKeys];
    const uint64_t bits = choose_codes(frequency, stored.num_components, smallest, specs, emit);

    // Each interval may add a byte of padding, any byte a stuffed one.
    const uint64_t most = kMaxHeaderBytes + 2 * (bits / 8 + stream.num_intervals + 1) +
                          2 * stream.num_intervals + 2 + 16;
    uint8_t* const file = static_cast<uint8_t*>(most <= SIZE_MAX ? std::malloc(most) : nullptr);
    if (!file) return kOutOfMemory;
    BitWriter writer(
        write_header(picture.quant, stored, orientation, specs, stream.interval, file));
    for (size_t n = 0; n < stream.num_intervals; ++n) {
        if (n > 0) writer.marker(kRST0 + static_cast<int>((n - 1) & 7));
        const Token* token = tokens + stream.intervals[n];
        const Token* const end =
            tokens + (n + 1 < stream.num_intervals ? stream.intervals[n + 1] : stream.num_tokens);
        for (; token < end; ++token) {
            const Emit code = emit[*token & (kKeys - 1)];
            writer.put(code.bits | *token >> kExtraShift, code.length);
        }
        writer.finish();
    }
    writer.marker(kEOI);
    result.bytes = file;
    result.size = size_t(writer.finish() - file);
    return kOk;
}

inline Status transcode(const uint8_t* data, size_t size, const TranscodeOptions& options,
                        TranscodeWorkspace& work, Picture& picture, Transcoded& result) {
    if (const Status status = picture.open(data, size)) return status;
    const Orientation orientation = Orientation::exif(options.orientation);
    Layout stored;
    if (const Status refused = storable(picture.header, picture.layout, orientation, stored)) {
        const Status damaged = picture.check();  // worse, so it is said first
        return is_corrupt(damaged) ? damaged : refused;
    }
    const int interval = restart_interval_for(stored, options.interval_pixels);
    const bool as_tokens = same_blocks(picture.layout, stored, orientation);
    if (const Status status = picture.read(as_tokens, interval)) return status;
    for (int i = 0; i < stored.num_components; ++i)
        for (const uint16_t value : picture.quant[i].values)
            if (value > 255) return kWideQuantTable;
    work.stream.interval = interval;
    if (picture.planar)
        if (const Status status = pack(picture.planes, stored, orientation, work.stream))
            return status;
    result.height = stored.height;
    result.width = stored.width;
    result.restart_interval = interval;
    return write_picture(picture, stored, orientation, work.stream, options.smallest, result);
}

}  // namespace fl
