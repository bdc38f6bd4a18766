// The one growing array of the core. It never throws, and a workspace keeps it from image to image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace fl {

// Elements are not initialised. Both ways to make room return null when there is no memory.
template <typename T>
class Array {
  public:
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { release(); }

    // Room for `count` elements, 64-byte aligned. The elements are lost where the array must grow.
    [[nodiscard]] T* reserve(size_t count) {
        if (count <= capacity_) return data_;
        if (count > SIZE_MAX / sizeof(T) - 64) return nullptr;
        release();
        const size_t bytes = (count * sizeof(T) + 63) & ~size_t{63};
        data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
        capacity_ = data_ ? bytes / sizeof(T) : 0;
        return data_;
    }

    // Room for `count` elements, aligned as malloc does. The elements stay, also without memory.
    [[nodiscard]] T* grow(size_t count) {
        if (count <= capacity_) return data_;
        if (count > SIZE_MAX / sizeof(T)) return nullptr;
        T* const grown = static_cast<T*>(std::realloc(data_, count * sizeof(T)));
        if (!grown) return nullptr;
        data_ = grown;
        capacity_ = count;
        return data_;
    }

    void release() {
        std::free(data_);
        data_ = nullptr;
        capacity_ = 0;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t capacity() const { return capacity_; }
    size_t bytes() const { return capacity_ * sizeof(T); }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace fl
