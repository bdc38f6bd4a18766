// The header of the file that is stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/header.hpp"
#include "core/huffman.hpp"
#include "transcode/layout.hpp"
#include "transcode/orient.hpp"
#include "transcode/tokens.hpp"

namespace fl {

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
        const size_t length = size_t(out_ - length_);
        length_[0] = static_cast<uint8_t>(length >> 8);
        length_[1] = static_cast<uint8_t>(length & 0xFF);
    }
    uint8_t* at() const { return out_; }

  private:
    uint8_t* out_;
    uint8_t* length_ = nullptr;
};

namespace header_writer_detail {

// Tables are turned with the picture. Components with the same table share it: `table_of` receives
// the number of each component's table.
inline void write_quant_tables(HeaderWriter& writer, const QuantTable* quant, int num_components,
                               bool transpose, int (&table_of)[4]) {
    int tables = 0;
    writer.begin(kDQT);
    for (int i = 0; i < num_components; ++i) {
        const uint16_t* const values = quant[i].values;
        int same = 0;  // the first component with these values
        while (std::memcmp(values, quant[same].values, 64 * sizeof *values)) ++same;
        table_of[i] = same < i ? table_of[same] : tables++;
        if (same < i) continue;
        writer.byte(table_of[i]);
        for (const int natural : kZigzag) {
            const int turned = transpose ? (natural & 7) * 8 + natural / 8 : natural;
            writer.byte(values[turned]);
        }
    }
    writer.end();
}

inline void write_frame(HeaderWriter& writer, const Layout& stored, const int (&table_of)[4]) {
    writer.begin(kSOF0);
    writer.byte(8);
    writer.word(stored.height);
    writer.word(stored.width);
    writer.byte(stored.num_components);
    for (int i = 0; i < stored.num_components; ++i) {
        writer.byte(i + 1);
        writer.byte(stored.components[i].h << 4 | stored.components[i].v);
        writer.byte(table_of[i]);
    }
    writer.end();
}

inline void write_codes(HeaderWriter& writer, const HuffmanSpec* specs) {
    writer.begin(kDHT);
    for (int table = 0; table < kTokenTables; ++table) {
        if (specs[table].total == 0) continue;
        writer.byte((table >= 2) << 4 | (table & 1));
        writer.bytes(specs[table].counts + 1, 16);
        writer.bytes(specs[table].symbols, size_t(specs[table].total));
    }
    writer.end();
}

inline void write_scan(HeaderWriter& writer, int num_components) {
    writer.begin(kSOS);
    writer.byte(num_components);
    for (int i = 0; i < num_components; ++i) {
        writer.byte(i + 1);
        writer.byte(i > 0 ? 0x11 : 0x00);
    }
    writer.byte(0);
    writer.byte(63);
    writer.byte(0);
    writer.end();
}

}  // namespace header_writer_detail

constexpr size_t kMaxHeaderBytes =
    2 + 18 + 4 * (4 + 65) + 19 + 4 + kTokenTables * (17 + 256) + 6 + 14 + 64;

// `quant` holds the table of each component as read, `specs` the tables of choose_codes. Returns
// the end of the header.
inline uint8_t* write_header(const QuantTable* quant, const Layout& stored, Orientation orientation,
                             const HuffmanSpec* specs, int interval, uint8_t* out) {
    HeaderWriter writer(out);
    writer.marker(kSOI);
    writer.begin(kAPP0);  // JFIF 1.01, square pixels, no thumbnail
    writer.bytes("JFIF\0\1\1\0\0\1\0\1\0\0", 14);
    writer.end();
    int table_of[4];
    header_writer_detail::write_quant_tables(writer, quant, stored.num_components,
                                             orientation.transpose, table_of);
    header_writer_detail::write_frame(writer, stored, table_of);
    header_writer_detail::write_codes(writer, specs);
    if (interval > 0) {
        writer.begin(kDRI);
        writer.word(interval);
        writer.end();
    }
    header_writer_detail::write_scan(writer, stored.num_components);
    return writer.at();
}

}  // namespace fl
