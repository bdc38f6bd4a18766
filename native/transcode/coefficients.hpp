// The quantised coefficients of a whole image, where tokens do not suffice: progressive files,
// files of several scans, and pictures that are to be turned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "transcode/layout.hpp"

namespace fl {

// Blocks of one component, each 64 coefficients in zigzag order, DC not as a difference.
class CoefficientPlane {
  public:
    CoefficientPlane() = default;
    CoefficientPlane(const CoefficientPlane&) = delete;
    CoefficientPlane& operator=(const CoefficientPlane&) = delete;
    ~CoefficientPlane() { std::free(coefficients_); }

    // All coefficients are zero at first.
    [[nodiscard]] bool allocate(const ComponentLayout& layout) {
        layout_ = layout;
        const size_t blocks = size_t(layout.stride) * size_t(layout.padded_rows);
        coefficients_ = static_cast<int16_t*>(std::calloc(blocks, 64 * sizeof(int16_t)));
        return coefficients_ != nullptr;
    }
    int rows() const { return layout_.rows; }
    int columns() const { return layout_.columns; }
    int16_t* block(int row, int column) { return coefficients_ + 64 * index(row, column); }
    const int16_t* block(int row, int column) const {
        return coefficients_ + 64 * index(row, column);
    }

    // Blocks outside the picture are never shown: gives them the coefficients that cost least, the
    // DC of their neighbour and no AC.
    void fill_padding() {
        for (int row = 0; row < layout_.padded_rows; ++row)
            for (int column = row < rows() ? columns() : 0; column < layout_.stride; ++column) {
                int16_t* const padded = block(row, column);
                std::memset(padded, 0, 64 * sizeof(int16_t));
                padded[0] =
                    column < columns() ? block(row - 1, column)[0] : block(row, column - 1)[0];
            }
    }

  private:
    size_t index(int row, int column) const {
        return size_t(row) * size_t(layout_.stride) + size_t(column);
    }

    ComponentLayout layout_ = {};
    int16_t* coefficients_ = nullptr;
};

}  // namespace fl
