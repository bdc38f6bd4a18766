// The marker structure of a JPEG (T.81 Annex B), read into plain structs.
//
// `read_to_scan` walks the segments up to and including the next SOS. Called again with the cursor
// behind that scan's entropy-coded data, it reads the tables between scans and the next SOS, so the
// same code serves sequential and progressive files. Every read is bounds-checked here, so all
// other code may rely on the ranges written beside the fields of Header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/status.hpp"

namespace fl {

// Zigzag position -> natural (row-major) position, T.81 figure A.6.
constexpr uint8_t kZigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,   //
                                 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,  //
                                 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,  //
                                 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

enum Marker : uint8_t {
    kSOF0 = 0xC0,
    kSOF1 = 0xC1,
    kSOF2 = 0xC2,
    kDHT = 0xC4,
    kJPG = 0xC8,
    kDAC = 0xCC,
    kSOF15 = 0xCF,
    kRST0 = 0xD0,
    kRST7 = 0xD7,
    kSOI = 0xD8,
    kEOI = 0xD9,
    kSOS = 0xDA,
    kDQT = 0xDB,
    kDNL = 0xDC,
    kDRI = 0xDD,
    kAPP0 = 0xE0,
    kAPP14 = 0xEE,
    kTEM = 0x01,
};

// Above this number of pixels Pillow too refuses a picture: twice PIL.Image.MAX_IMAGE_PIXELS. Their
// coefficients take 1.1 GB. fastload/pixels/jpeg.py holds the same number.
constexpr int64_t kMaxPixels = 178956970;

struct QuantTable {
    uint16_t values[64];  // natural order
    bool defined;
    bool sixteen_bit;  // Pq = 1
};

struct HuffmanSpec {     // as in DHT: BITS and HUFFVAL
    uint8_t counts[17];  // counts[length], length in [1, 16]; their sum is `total`
    uint8_t symbols[256];
    int total;  // in [0, 256]
    bool defined;
};

struct Component {
    uint8_t id;
    uint8_t h, v;   // sampling factors in [1, 4]
    uint8_t quant;  // in [0, 4)
};

struct Frame {
    uint8_t marker;  // kSOF0..kSOF15; 0 until one was read
    uint8_t precision;
    int height, width;   // width in [1, 65535]; height in [0, 65535], 0 = stated later by DNL
    int num_components;  // in [1, 4]
    Component components[4];
    int max_h, max_v;
};

struct ScanComponent {
    uint8_t component;  // index into Frame::components
    uint8_t dc, ac;     // Huffman tables, in [0, 4)
};

struct Scan {
    int num_components;  // in [1, 4]
    ScanComponent components[4];
    uint8_t spectral_start, spectral_end;  // Ss, Se as written; ranges are the decoder's business
    uint8_t approximation_high, approximation_low;
    size_t header_offset;  // of the SOS marker
    size_t data_offset;    // first entropy-coded byte; may equal the size of the file
};

struct Header {
    Frame frame;
    Scan scan;  // the last one read
    QuantTable quant[4];
    HuffmanSpec dc[4], ac[4];
    int restart_interval;  // MCUs, 0 = none; in [0, 65535]
    int num_scans;         // read so far
    bool jfif;
    bool adobe;
    uint8_t adobe_transform;
    bool ended;  // EOI was met instead of a scan
};

struct Cursor {
    const uint8_t* data;
    size_t size;
    size_t position;
};

namespace header_detail {

inline int big16(const uint8_t* p) { return p[0] << 8 | p[1]; }

inline Status read_quant(const uint8_t* p, size_t n, Header& header) {  // B.2.4.1
    while (n > 0) {
        const int wide = p[0] >> 4, index = p[0] & 15;
        const size_t bytes = 1 + (wide ? 128 : 64);
        if (wide > 1 || index > 3 || n < bytes) return kBadQuantTable;
        QuantTable& table = header.quant[index];
        for (int i = 0; i < 64; ++i) {
            const int value = wide ? big16(p + 1 + 2 * i) : p[1 + i];
            table.values[kZigzag[i]] = static_cast<uint16_t>(value);
        }
        table.defined = true;
        table.sixteen_bit = wide != 0;
        p += bytes;
        n -= bytes;
    }
    return kOk;
}

inline Status read_huffman(const uint8_t* p, size_t n, Header& header) {  // B.2.4.2
    while (n > 0) {
        if (n < 17 || (p[0] & 0xEF) > 3) return kBadHuffmanTable;
        HuffmanSpec& table = p[0] & 0x10 ? header.ac[p[0] & 3] : header.dc[p[0] & 3];
        int total = 0;
        for (int length = 1; length <= 16; ++length) total += p[length];
        if (total > 256 || n < 17u + total) return kBadHuffmanTable;
        table.counts[0] = 0;
        std::memcpy(table.counts + 1, p + 1, 16);
        std::memset(table.symbols, 0, sizeof table.symbols);
        std::memcpy(table.symbols, p + 17, total);
        table.total = total;
        table.defined = true;
        p += 17 + total;
        n -= 17 + total;
    }
    return kOk;
}

inline Status read_frame(uint8_t marker, const uint8_t* p, size_t n, Header& header) {  // B.2.2
    Frame& frame = header.frame;
    if (frame.marker != 0 || n < 6) return kBadFrame;
    frame.precision = p[0];
    frame.height = big16(p + 1);
    frame.width = big16(p + 3);
    frame.num_components = p[5];
    if (frame.width == 0) return kBadFrame;
    if (frame.num_components < 1) return kBadFrame;
    if (frame.num_components > 4) return kComponents;
    if (n != 6u + 3u * frame.num_components) return kBadFrame;
    frame.max_h = frame.max_v = 1;
    for (int i = 0; i < frame.num_components; ++i) {
        const uint8_t* entry = p + 6 + 3 * i;
        Component& component = frame.components[i];
        component = {entry[0], static_cast<uint8_t>(entry[1] >> 4),
                     static_cast<uint8_t>(entry[1] & 15), entry[2]};
        if (component.h < 1 || component.h > 4 || component.v < 1 || component.v > 4 ||
            component.quant > 3)
            return kBadFrame;
        for (int j = 0; j < i; ++j)
            if (frame.components[j].id == component.id) return kBadFrame;
        if (component.h > frame.max_h) frame.max_h = component.h;
        if (component.v > frame.max_v) frame.max_v = component.v;
    }
    frame.marker = marker;
    return kOk;
}

inline Status read_scan(const uint8_t* p, size_t n, Header& header) {  // B.2.3
    const Frame& frame = header.frame;
    Scan& scan = header.scan;
    if (frame.marker == 0 || n < 1) return kBadScan;
    scan.num_components = p[0];
    if (p[0] < 1 || p[0] > frame.num_components || n != 4u + 2u * p[0]) return kBadScan;
    for (int i = 0; i < scan.num_components; ++i) {
        const uint8_t id = p[1 + 2 * i], tables = p[2 + 2 * i];
        int index = 0;
        while (index < frame.num_components && frame.components[index].id != id) ++index;
        if (index == frame.num_components || (tables & 0xCC) != 0) return kBadScan;
        scan.components[i] = {static_cast<uint8_t>(index), static_cast<uint8_t>(tables >> 4),
                              static_cast<uint8_t>(tables & 15)};
        for (int j = 0; j < i; ++j)
            if (scan.components[j].component == index) return kBadScan;
    }
    const uint8_t* tail = p + 1 + 2 * scan.num_components;
    scan.spectral_start = tail[0];
    scan.spectral_end = tail[1];
    scan.approximation_high = tail[2] >> 4;
    scan.approximation_low = tail[2] & 15;
    return kOk;
}

inline void read_application(uint8_t marker, const uint8_t* p, size_t n, Header& header) {
    if (marker == kAPP0 && n >= 14 && std::memcmp(p, "JFIF", 5) == 0) header.jfif = true;
    if (marker == kAPP14 && n >= 12 && std::memcmp(p, "Adobe", 5) == 0) {
        header.adobe = true;
        header.adobe_transform = p[11];
    }
}

inline bool is_frame_marker(uint8_t marker) {
    return marker >= kSOF0 && marker <= kSOF15 && marker != kDHT && marker != kJPG &&
           marker != kDAC;
}

inline Status read_segment(uint8_t marker, const uint8_t* p, size_t n, Header& header) {
    if (is_frame_marker(marker)) return read_frame(marker, p, n, header);
    switch (marker) {
        case kDQT:
            return read_quant(p, n, header);
        case kDHT:
            return read_huffman(p, n, header);
        case kSOS:
            return read_scan(p, n, header);
        case kDRI:
            if (n != 2) return kBadSegment;
            header.restart_interval = big16(p);
            return kOk;
        default:
            read_application(marker, p, n, header);
            return kOk;
    }
}

}  // namespace header_detail

// Reads segments from the cursor through the next SOS; the cursor then stands at the first byte of
// that scan's entropy-coded data. At EOI, or where the file ends, sets `header.ended`.
inline Status read_to_scan(Cursor& cursor, Header& header) {
    const uint8_t* data = cursor.data;
    const size_t size = cursor.size;
    size_t& at = cursor.position;
    for (;;) {
        if (at > size || size - at < 2) {
            header.ended = true;
            return header.num_scans > 0 ? kTruncatedScan : kTruncatedHeader;
        }
        if (data[at] != 0xFF) return kBytesBetweenSegments;
        while (at + 1 < size && data[at + 1] == 0xFF) ++at;  // fill bytes, B.1.1.2
        if (at + 1 >= size) return kTruncatedHeader;
        const uint8_t marker = data[at + 1];
        const size_t marker_offset = at;
        at += 2;
        if (marker == kEOI) {
            header.ended = true;
            return header.num_scans > 0 ? kOk : kNoImage;
        }
        if (marker == kTEM) continue;
        if (marker < kSOF0 || (marker >= kRST0 && marker <= kSOI)) return kBytesBetweenSegments;
        if (size - at < 2) return kTruncatedHeader;
        const size_t length = header_detail::big16(data + at);
        if (length < 2) return kBytesBetweenSegments;  // libjpeg steps over the two bytes
        if (size - at < length) return kTruncatedHeader;
        if (const Status status =
                header_detail::read_segment(marker, data + at + 2, length - 2, header))
            return status;
        at += length;
        if (marker == kSOS) {
            header.scan.header_offset = marker_offset;
            header.scan.data_offset = at;
            ++header.num_scans;
            return kOk;
        }
    }
}

// Reads a file from its SOI through its first SOS.
inline Status read_header(const uint8_t* data, size_t size, Cursor& cursor, Header& header) {
    std::memset(&header, 0, sizeof header);
    cursor = {data, size, 2};
    if (size < 3 || data[0] != 0xFF || data[1] != kSOI || data[2] != 0xFF) return kNotJpeg;
    return read_to_scan(cursor, header);
}

// Whether libjpeg would take three components as YCbCr (jdapimin.c, default_decompress_parms).
inline bool is_ycbcr(const Header& header) {
    if (header.jfif) return true;
    if (header.adobe) return header.adobe_transform != 0;
    const Component* c = header.frame.components;
    return !(c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B');
}

inline int divide_up(int a, int b) { return (a + b - 1) / b; }

}  // namespace fl
