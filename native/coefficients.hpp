// The quantised coefficients of a whole image, where tokens do not suffice: progressive files,
// files of several scans, and pictures that are to be turned.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace fl {

// Blocks of one component, each 64 coefficients in zig-zag order, DC not as a difference.
// `columns` and `rows` hold the picture (T.81, A.2.2); `stride` and `padded_rows` fill whole MCUs.
struct Plane {
    int columns = 0, rows = 0;
    int stride = 0, padded_rows = 0;
    int16_t* coefficients = nullptr;  // owned; zero at first

    Plane() = default;
    Plane(const Plane&) = delete;
    Plane& operator=(const Plane&) = delete;
    ~Plane() { std::free(coefficients); }

    [[nodiscard]] bool allocate(int rows_, int columns_, int padded_rows_, int stride_) {
        rows = rows_;
        columns = columns_;
        padded_rows = padded_rows_;
        stride = stride_;
        const size_t blocks = static_cast<size_t>(stride) * static_cast<size_t>(padded_rows);
        coefficients = static_cast<int16_t*>(std::calloc(blocks, 64 * sizeof(int16_t)));
        return coefficients != nullptr;
    }
    int16_t* block(int row, int column) {
        return coefficients + (static_cast<size_t>(row) * static_cast<size_t>(stride) +
                               static_cast<size_t>(column)) *
                                  64;
    }
    const int16_t* block(int row, int column) const {
        return const_cast<Plane*>(this)->block(row, column);
    }

    // Blocks outside the picture are never shown: give them the coefficients that cost least, the
    // DC of their neighbour and no AC.
    void fill_padding() {
        for (int row = 0; row < padded_rows; row++) {
            for (int column = row < rows ? columns : 0; column < stride; column++) {
                int16_t* padded = block(row, column);
                std::memset(padded, 0, 64 * sizeof(int16_t));
                padded[0] =
                    column < columns ? block(row - 1, column)[0] : block(row, column - 1)[0];
            }
        }
    }
};

}  // namespace fl
