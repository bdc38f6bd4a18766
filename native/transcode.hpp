// JPEG to the JPEG that is stored: the same coefficients, baseline, one scan, optimal Huffman
// tables, restart markers, no metadata, upright.
//
// What remains of the header is JFIF's APP0, which makes every decoder read the components as
// YCbCr. An ICC profile is dropped like all else: no decoder of training pixels applies it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "encode.hpp"
#include "optimal.hpp"
#include "orient.hpp"
#include "picture.hpp"

namespace fl {

struct TranscodeOptions {
    int interval_pixels;  // usual width of a restart interval; 0: no restart markers; -1: chosen
    bool smallest;        // the smallest file, not the one that decodes fastest
    bool orient;          // apply the EXIF orientation
};

// Restart interval in MCUs: the largest divisor of the MCU row that spans 0.5 to 1.5 times the
// usual width, so that the file can be sliced by bytes; else the usual width. A narrow image: its
// row.
inline int restart_interval(const Layout& layout, int pixels) {
    if (pixels == 0) return 0;
    // Chroma at half the width holds fewer bytes to a pixel: at 64 pixels the markers made 2,800
    // 4:2:0 photographs of 43 kB 0.7 % larger than they were, at 96 pixels 0.2 % smaller, for crops
    // that take 4 % longer (benchmarks/bench_transcode.py).
    if (pixels < 0) pixels = layout.mcu_width == 8 ? 64 : 96;
    const int least = pixels / 2 / layout.mcu_width, usual = pixels / layout.mcu_width;
    const int greatest = pixels * 3 / 2 / layout.mcu_width, row = layout.mcu_columns;
    if (row <= usual) return row;
    for (int interval = greatest; interval >= least && interval > 0; interval--) {
        if (row % interval == 0) return interval;
    }
    return usual > 0 ? usual : 1;
}

// The layout of the picture as stored: turned, its sampling factors without a common divisor.
// kSampling unless luma has factors of 1 or 2 and chroma of 1: others this core would not decode.
inline Status stored_layout(const Layout& read, Orientation orientation, Layout* stored) {
    int h[4], v[4];
    for (int i = 0; i < read.num_parts; i++) {
        h[i] = orientation.transpose ? read.parts[i].v : read.parts[i].h;
        v[i] = orientation.transpose ? read.parts[i].h : read.parts[i].v;
    }
    for (int* factors : {h, v}) {
        for (int divisor = 4; divisor > 1; divisor--) {
            bool common = true;
            for (int i = 0; i < read.num_parts; i++) common = common && factors[i] % divisor == 0;
            for (int i = 0; i < read.num_parts && common; i++) factors[i] /= divisor;
        }
        for (int i = 0; i < read.num_parts; i++) {
            if (factors[i] > (i == 0 ? 2 : 1)) return kSampling;
        }
    }
    *stored = make_layout(orientation.transpose ? read.width : read.height,
                          orientation.transpose ? read.height : read.width, read.num_parts, h, v);
    return kOk;
}

// An axis can be mirrored where the picture fills its last MCU.
inline bool aligned(const Layout& stored, Orientation orientation) {
    return !(orientation.mirror_columns && stored.width % stored.mcu_width) &&
           !(orientation.mirror_rows && stored.height % stored.mcu_height);
}

// Tokens of one block whose coefficients are in the range of baseline.
inline Token* put_block(const int16_t* block, int chroma, int* written, Token* token) {
    const int change = block[0] - *written;
    *written = block[0];
    const int dc_size = category(change);
    *token++ = make_token(chroma, dc_size, extra_bits(change, dc_size));
    int zeros = 0;
    for (int k = 1; k < 64; k++) {
        const int value = block[k];
        if (value == 0) {
            zeros++;
            continue;
        }
        for (; zeros > 15; zeros -= 16) *token++ = make_token(2 + chroma, 0xF0, 0);
        const int size = category(value);
        *token++ = make_token(2 + chroma, zeros << 4 | size, extra_bits(value, size));
        zeros = 0;
    }
    if (zeros > 0) *token++ = make_token(2 + chroma, 0, 0);
    return token;
}

inline Status put_planes(Picture& picture, const Layout& stored, Orientation orientation,
                         TokenStream& stream) {
    stream.clear();
    const OrientedPlane planes[4] = {{picture.planes[0], orientation},
                                     {picture.planes[1], orientation},
                                     {picture.planes[2], orientation},
                                     {picture.planes[3], orientation}};
    for (int i = 0; i < stored.num_parts; i++) picture.planes[i].fill_padding();
    int written[4] = {};
    int until = 0;
    for (int row = 0; row < stored.mcu_rows; row++) {
        for (int column = 0; column < stored.mcu_columns; column++) {
            if (!stream.reserve_mcu()) return kOutOfMemory;
            if (until-- == 0) {
                until = stream.interval ? stream.interval - 1 : -1;
                std::memset(written, 0, sizeof written);
                if (!stream.begin_interval()) return kOutOfMemory;
            }
            Token* token = stream.tokens.data() + stream.num_tokens;
            for (int i = 0; i < stored.num_parts; i++) {
                const Part& part = stored.parts[i];
                for (int b = 0; b < part.h * part.v; b++) {
                    int16_t changed[64];
                    const int16_t* block = planes[i].block(row * part.v + b / part.h,
                                                           column * part.h + b % part.h, changed);
                    if (category(block[0] - written[i]) > kMostDcCategory) return kCoefficientRange;
                    token = put_block(block, i > 0, &written[i], token);
                }
            }
            stream.num_tokens = static_cast<size_t>(token - stream.tokens.data());
        }
    }
    return kOk;
}

// Writes a header segment by segment.
class HeaderWriter {
  public:
    explicit HeaderWriter(uint8_t* out) : out_(out) {}

    void byte(int value) { *out_++ = static_cast<uint8_t>(value); }
    void word(int value) {
        byte(value >> 8);
        byte(value & 0xFF);
    }
    void marker(int code) {
        byte(0xFF);
        byte(code);
    }
    void bytes(const void* data, size_t size) {
        std::memcpy(out_, data, size);
        out_ += size;
    }
    // A marker segment begins; its length is filled in by `end`.
    void begin(int code) {
        marker(code);
        length_ = out_;
        out_ += 2;
    }
    void end() {
        const size_t length = static_cast<size_t>(out_ - length_);
        length_[0] = static_cast<uint8_t>(length >> 8);
        length_[1] = static_cast<uint8_t>(length & 0xFF);
    }
    uint8_t* at() const { return out_; }

  private:
    uint8_t* out_;
    uint8_t* length_ = nullptr;
};

constexpr size_t kMostHeader =
    2 + 18 + 4 * (4 + 65) + 19 + 4 + kTokenTables * (17 + 256) + 6 + 14 + 64;

inline uint8_t* write_header(const Picture& picture, const Layout& stored, Orientation orientation,
                             const CodeBook* books, int interval, uint8_t* out) {
    HeaderWriter writer(out);
    writer.marker(kSOI);
    writer.begin(kAPP0);  // JFIF 1.01, square pixels, no thumbnail
    writer.bytes("JFIF\0\1\1\0\0\1\0\1\0\0", 14);
    writer.end();

    int table_of[4] = {}, tables = 0;
    writer.begin(kDQT);
    for (int i = 0; i < stored.num_parts; i++) {
        const uint16_t* values = picture.quant[i].values;
        int same = 0;  // the first component with these values
        while (std::memcmp(values, picture.quant[same].values, 64 * sizeof *values)) same++;
        table_of[i] = same < i ? table_of[same] : tables++;
        if (same < i) continue;
        writer.byte(table_of[i]);
        for (int k = 0; k < 64; k++) {
            const int natural = kZigzag[k];
            const int turned = orientation.transpose ? (natural & 7) * 8 + natural / 8 : natural;
            writer.byte(values[turned]);
        }
    }
    writer.end();

    writer.begin(kSOF0);
    writer.byte(8);
    writer.word(stored.height);
    writer.word(stored.width);
    writer.byte(stored.num_parts);
    for (int i = 0; i < stored.num_parts; i++) {
        writer.byte(i + 1);
        writer.byte(stored.parts[i].h << 4 | stored.parts[i].v);
        writer.byte(table_of[i]);
    }
    writer.end();

    writer.begin(kDHT);
    for (int table = 0; table < kTokenTables; table++) {
        if (books[table].size == 0) continue;
        writer.byte((table >= 2) << 4 | (table & 1));
        writer.bytes(books[table].counts + 1, 16);
        writer.bytes(books[table].symbols, static_cast<size_t>(books[table].size));
    }
    writer.end();

    if (interval > 0) {
        writer.begin(kDRI);
        writer.word(interval);
        writer.end();
    }
    writer.begin(kSOS);
    writer.byte(stored.num_parts);
    for (int i = 0; i < stored.num_parts; i++) {
        writer.byte(i + 1);
        writer.byte(i > 0 ? 0x11 : 0x00);
    }
    writer.byte(0);
    writer.byte(63);
    writer.byte(0);
    writer.end();
    return writer.at();
}

// Tables and codes for counted symbols, and the bits that all of them take.
//
// The tables serve the decoder: it looks up kLookBits bits and finds code and value together,
// unless they are longer; then it takes several times as long. So codes have at most 10 bits, and a
// symbol that just does not fit counts double, by which most of them come to fit. Against the
// smallest tables, crops of photographs of 80 kB (4:4:4) decode in 0.309 ms instead of 0.328, and
// files grow by 0.3 % (benchmarks/bench_transcode.py). One set of tables for all images, which
// would spare building them, costs 3.0 to 3.7 % of the bytes: not worth it.
inline uint64_t choose_codes(const uint32_t* frequency, int num_parts, bool smallest,
                             CodeBook* books, Emit* emit) {
    constexpr int kFastLimit = 10;
    constexpr uint32_t kNearlyFits = kLookBits + 3;
    const int limit = smallest ? kMaxCodeLength : kFastLimit;
    const auto assign = [&](const uint32_t* weights) {
        std::memset(emit, 0, kKeys * sizeof *emit);
        for (int table = 0; table < kTokenTables; table++) {
            if ((table & 1) && num_parts == 1) continue;
            books[table] = optimal_book(weights + 256 * table, limit);
            assign_codes(books[table], emit + 256 * table);
        }
    };
    assign(frequency);
    if (!smallest) {
        uint32_t weights[kKeys];
        for (int key = 0; key < kKeys; key++) {
            const uint32_t length = emit[key].length;
            const bool misses = length > kLookBits && length <= kNearlyFits;
            weights[key] =
                misses && frequency[key] < (1u << 31) ? 2 * frequency[key] : frequency[key];
        }
        assign(weights);
    }
    uint64_t bits = 0;
    for (int key = 0; key < kKeys; key++) bits += uint64_t{frequency[key]} * emit[key].length;
    return bits;
}

// Writes the file; *out receives memory from malloc, *size its bytes.
inline Status write_picture(const Picture& picture, const Layout& stored, Orientation orientation,
                            const TokenStream& stream, bool smallest, uint8_t** out, size_t* size) {
    if (stream.num_tokens > UINT32_MAX) return kTooLarge;
    uint32_t frequency[kKeys] = {};
    const Token* const tokens = stream.tokens.data();
    for (size_t i = 0; i < stream.num_tokens; i++) frequency[tokens[i] & (kKeys - 1)]++;
    CodeBook books[kTokenTables];
    Emit emit[kKeys];
    const uint64_t bits = choose_codes(frequency, stored.num_parts, smallest, books, emit);

    // Each interval may add a byte of padding, any byte a stuffed one.
    const uint64_t most =
        kMostHeader + 2 * (bits / 8 + stream.num_intervals + 1) + 2 * stream.num_intervals + 2 + 16;
    uint8_t* const file = static_cast<uint8_t*>(most <= SIZE_MAX ? std::malloc(most) : nullptr);
    if (!file) return kOutOfMemory;
    uint8_t* at = write_header(picture, stored, orientation, books, stream.interval, file);
    BitWriter writer(at);
    for (size_t n = 0; n < stream.num_intervals; n++) {
        if (n > 0) writer.marker(kRST0 + static_cast<int>((n - 1) & 7));
        const Token* token = tokens + stream.intervals[n];
        const Token* const end =
            tokens + (n + 1 < stream.num_intervals ? stream.intervals[n + 1] : stream.num_tokens);
        for (; token < end; token++) {
            const Emit code = emit[*token & (kKeys - 1)];
            writer.put(code.bits | *token >> kExtraShift, code.length);
        }
        writer.finish();
    }
    writer.marker(kEOI);
    *out = file;
    *size = static_cast<size_t>(writer.finish() - file);
    return kOk;
}

struct Transcoded {
    uint8_t* bytes;  // from malloc
    size_t size;
    int height, width;
    int restart_interval;
    bool turned;
};

// What of a sound file cannot be stored losslessly.
inline Status storable(const Picture& picture, Orientation orientation, Layout* stored) {
    const Header& header = picture.header;
    if (header.frame.num_components != 1 && header.frame.num_components != 3) return kComponents;
    if (header.frame.num_components == 3 && !is_ycbcr(header)) return kColourSpace;
    if (const Status status = stored_layout(picture.layout, orientation, stored)) return status;
    return aligned(*stored, orientation) ? kOk : kUnalignedOrientation;
}

inline Status transcode(const uint8_t* data, size_t size, const TranscodeOptions& options,
                        ScanMemory& work, Picture& picture, Transcoded* result) {
    if (const Status status = picture.open(data, size)) return status;
    const Orientation orientation =
        options.orient ? Orientation::exif(picture.header.orientation) : Orientation{};
    Layout stored;
    if (const Status refused = storable(picture, orientation, &stored)) {
        const Status damaged = picture.check();  // worse, so it is said first
        return is_corrupt(damaged) ? damaged : refused;
    }
    const int interval = restart_interval(stored, options.interval_pixels);
    bool as_it_is = orientation.identity();
    for (int i = 0; i < stored.num_parts; i++) {
        as_it_is = as_it_is && stored.parts[i].h == picture.layout.parts[i].h &&
                   stored.parts[i].v == picture.layout.parts[i].v;
    }
    if (const Status status = picture.read(as_it_is, interval)) return status;
    for (int i = 0; i < stored.num_parts; i++) {
        for (const uint16_t value : picture.quant[i].values) {
            if (value > 255) return kWideQuantTable;
        }
    }
    work.stream.interval = interval;
    if (picture.planar) {
        if (const Status status = put_planes(picture, stored, orientation, work.stream))
            return status;
    }
    result->height = stored.height;
    result->width = stored.width;
    result->restart_interval = interval;
    result->turned = !orientation.identity();
    return write_picture(picture, stored, orientation, work.stream, options.smallest,
                         &result->bytes, &result->size);
}

}  // namespace fl
