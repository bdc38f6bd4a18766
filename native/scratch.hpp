// Working memory that is kept from one image to the next, one set per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace fl {

// Grows and never throws: reserve() returns null when there is no memory.
template <typename T>
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    // Room for `count` elements, 64-byte aligned; what was in it is lost if it must grow.
    T* reserve(size_t count) {
        if (count > SIZE_MAX / sizeof(T) - 64) return nullptr;
        if (count > capacity_) {
            release();
            const size_t bytes = (count * sizeof(T) + 63) & ~size_t{63};
            data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
            capacity_ = data_ ? bytes / sizeof(T) : 0;
        }
        return data_;
    }
    T* data() { return data_; }
    size_t bytes() const { return capacity_ * sizeof(T); }
    void release() {
        std::free(data_);
        data_ = nullptr;
        capacity_ = 0;
    }

  private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace fl
