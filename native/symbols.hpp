// Reading a scan symbol by symbol: bytes without their stuffing, and a table from bits to symbols.
//
// Decoding to pixels wants values; transcoding wants symbols and the raw bits behind them, so its table
// is its own. One look-up of 11 bits finds nearly every code of a photograph; longer ones are searched.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastload {

// Room behind the bytes of an interval: a block reads at most 64 * 31 + 63 bits = 256 bytes past the end
// before its position is checked, and a refill reads 8.
constexpr size_t kScanSlack = 320;

// Copy entropy-coded bytes from `in` to `out` up to the next marker or `end`, dropping stuffed zeros
// (T.81, B.1.1.5). Returns where it stopped; *size receives the bytes written, with slack of zeros.
// `out` must have room for `end - in` bytes and kScanSlack.
inline const uint8_t* unstuff(const uint8_t* in, const uint8_t* end, uint8_t* out, size_t* size) {
  uint8_t* const start = out;
  while (in < end) {
    const void* found = std::memchr(in, 0xFF, static_cast<size_t>(end - in));
    const uint8_t* escape = found ? static_cast<const uint8_t*>(found) : end;
    std::memcpy(out, in, static_cast<size_t>(escape - in));
    out += escape - in;
    in = escape;
    if (end - in < 2 || in[1] != 0) break;
    *out++ = 0xFF;
    in += 2;
  }
  *size = static_cast<size_t>(out - start);
  std::memset(out, 0, kScanSlack);
  return in;
}

// A window of bits, most significant first, refilled without branches.
class BitReader {
 public:
  BitReader(const uint8_t* bytes, size_t size) : start_(bytes), next_(bytes), size_(size) {}

  // At least 56 bits are then in the window.
  void refill() {
    uint64_t bytes;
    std::memcpy(&bytes, next_, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    bytes = __builtin_bswap64(bytes);
#endif
    window_ |= bytes >> count_;
    next_ += (63 - count_) >> 3;
    count_ |= 56;
  }
  uint64_t window() const { return window_; }
  void skip(uint32_t length) {
    window_ <<= length;
    count_ -= length;
  }
  uint32_t take(uint32_t length) {  // 0 to 32 bits, after a refill
    const uint32_t bits = static_cast<uint32_t>(window_ >> 1 >> (63 - length));
    skip(length);
    return bits;
  }
  size_t position() const {  // bits consumed
    return static_cast<size_t>(next_ - start_) * 8 - count_;
  }
  bool overrun() const { return position() > size_ * 8; }
  size_t bytes_left() const { return size_ - (position() + 7) / 8; }
  const uint8_t* unread() const { return start_ + (position() + 7) / 8; }

 private:
  const uint8_t* start_;
  const uint8_t* next_;
  size_t size_;
  uint64_t window_ = 0;
  uint32_t count_ = 0;  // valid bits in the window
};

constexpr int kLookBits = 11;

// What the next bits mean. A code of no length is not in the short table.
struct Symbol {
  uint8_t symbol;
  uint8_t code_length;
  uint8_t total_length;  // code and extra bits
  uint8_t advance;       // coefficients passed: run + 1; 128 at the end of the block
};

constexpr uint8_t kBlockEnd = 128;

class SymbolTable {
 public:
  // From the counts and symbols of a DHT segment whose sum of counts is at most 256 and whose codes
  // fit their lengths.
  void build(const uint8_t* counts_from_1, const uint8_t* symbols) {
    std::memset(look_, 0, sizeof look_);
    std::memcpy(symbols_, symbols, sizeof symbols_);
    uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= 16; length++) {
      const int count = counts_from_1[length - 1];
      first_index_[length] = index - static_cast<int>(code);
      for (int i = 0; i < count; i++, code++, index++) {
        if (length > kLookBits) continue;
        const Symbol entry = describe(symbols[index], length);
        const uint32_t at = code << (kLookBits - length);
        for (uint32_t j = 0; j < 1u << (kLookBits - length); j++) look_[at + j] = entry;
      }
      // Codes of this length are below this bound, left-aligned in 16 bits (T.81, F.2.2.3).
      bound_[length] = code << (16 - length);
      code <<= 1;
    }
  }

  Symbol find(uint64_t window) const {
    const Symbol entry = look_[window >> (64 - kLookBits)];
    return __builtin_expect(entry.code_length != 0, 1) ? entry : search(window);
  }

 private:
  static Symbol describe(uint8_t symbol, int length) {
    const int size = symbol & 15;
    const int advance = size || symbol == 0xF0 ? (symbol >> 4) + 1 : kBlockEnd;
    return {symbol, static_cast<uint8_t>(length), static_cast<uint8_t>(length + size),
            static_cast<uint8_t>(advance)};
  }
  Symbol search(uint64_t window) const {
    const uint32_t bits = static_cast<uint32_t>(window >> 48);
    for (int length = kLookBits + 1; length <= 16; length++) {
      if (bits < bound_[length]) {
        const int index = first_index_[length] + static_cast<int>(bits >> (16 - length));
        return describe(symbols_[index & 255], length);
      }
    }
    return {0, 0, 0, 0};  // no such code
  }

  Symbol look_[1 << kLookBits];
  uint32_t bound_[17];
  int first_index_[17];
  uint8_t symbols_[256];
};

}  // namespace fastload
