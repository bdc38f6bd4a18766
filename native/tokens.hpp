// The symbols of an entropy-coded scan, before they have codes.
//
// Transcoding changes which code stands for a symbol and where prediction restarts, nothing else;
// so a scan is read into tokens (one for each symbol of T.81, F.1.2), their symbols are counted,
// and the same tokens are written with the best codes. The bits that follow a code are carried as
// they are.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace fl {

// Key of a symbol: its table (0, 1: DC of luma, chroma; 2, 3: AC of luma, chroma) and the symbol.
constexpr int kTokenTables = 4;
constexpr int kKeys = kTokenTables * 256;
constexpr int kExtraShift = 16;  // a token is key | extra bits << 16; extra bits are at most 11

using Token = uint32_t;

inline Token make_token(int table, int symbol, uint32_t extra) {
    return static_cast<Token>(table) << 8 | static_cast<Token>(symbol) | extra << kExtraShift;
}

// A growing array without exceptions: `reserve` says false when memory ends.
template <typename T>
class Array {
  public:
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { std::free(data_); }

    [[nodiscard]] bool reserve(size_t capacity) {
        if (capacity <= capacity_) return true;
        if (capacity > SIZE_MAX / sizeof(T)) return false;
        void* grown = std::realloc(data_, capacity * sizeof(T));
        if (!grown) return false;
        data_ = static_cast<T*>(grown);
        capacity_ = capacity;
        return true;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t capacity() const { return capacity_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    T* release() {
        T* owned = data_;
        data_ = nullptr;
        capacity_ = 0;
        return owned;
    }

  private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

// Category and extra bits of a coefficient or DC difference (T.81, F.1.2.1.1): a negative value is
// stored as its low bits less one.
inline int category(int value) {
    const uint32_t magnitude = static_cast<uint32_t>(value < 0 ? -value : value);
    return magnitude ? 32 - __builtin_clz(magnitude) : 0;
}
inline uint32_t extra_bits(int value, int size) {
    return static_cast<uint32_t>(value < 0 ? value - 1 : value) & ((1u << size) - 1);
}

}  // namespace fl
