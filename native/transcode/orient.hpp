// Turning and mirroring a picture by its coefficients (as jpegtran does), without loss.
//
// Mirroring a block's columns negates its coefficients of odd horizontal frequency; transposing it
// swaps the frequencies. Blocks outside the picture must stay at the right and bottom, so an axis
// can be mirrored only where the picture fills its last MCU; then no block lies outside.
#pragma once

#include <cstdint>

#include "core/header.hpp"
#include "transcode/coefficients.hpp"

namespace fl {

struct Orientation {
    bool transpose = false;                            // first
    bool mirror_columns = false, mirror_rows = false;  // then, in the picture as shown

    bool identity() const { return !transpose && !mirror_columns && !mirror_rows; }

    // By value of the EXIF tag Orientation, in [1, 8] (TIFF 6.0, section 8).
    static Orientation exif(int value) {
        constexpr bool kSteps[8][3] = {
            {false, false, false}, {false, true, false}, {false, true, true}, {false, false, true},
            {true, false, false},  {true, true, false},  {true, true, true},  {true, false, true}};
        const bool* const steps = kSteps[value - 1];
        return {steps[0], steps[1], steps[2]};
    }
};

// How the blocks of one component are found, and changed, in the picture as shown.
class OrientedPlane {
  public:
    OrientedPlane(const CoefficientPlane& plane, Orientation orientation)
        : plane_(plane), orientation_(orientation) {
        uint8_t zigzag[64];
        for (int k = 0; k < 64; ++k) zigzag[kZigzag[k]] = static_cast<uint8_t>(k);
        for (int k = 0; k < 64; ++k) {
            const int v = kZigzag[k] >> 3, u = kZigzag[k] & 7;
            from_[k] = orientation.transpose ? zigzag[u * 8 + v] : static_cast<uint8_t>(k);
            const bool negative =
                (orientation.mirror_columns && (u & 1)) != (orientation.mirror_rows && (v & 1));
            sign_[k] = negative ? -1 : 1;
        }
    }

    // The block at a row and column of the picture as shown, written to `out` where it changes.
    const int16_t* block(int row, int column, int16_t* out) const {
        if (orientation_.identity()) return plane_.block(row, column);
        const int rows = orientation_.transpose ? plane_.columns() : plane_.rows();
        const int columns = orientation_.transpose ? plane_.rows() : plane_.columns();
        const int y = orientation_.mirror_rows ? rows - 1 - row : row;
        const int x = orientation_.mirror_columns ? columns - 1 - column : column;
        const int16_t* in = orientation_.transpose ? plane_.block(x, y) : plane_.block(y, x);
        for (int k = 0; k < 64; ++k) out[k] = static_cast<int16_t>(in[from_[k]] * sign_[k]);
        return out;
    }

  private:
    const CoefficientPlane& plane_;
    Orientation orientation_;
    uint8_t from_[64];
    int16_t sign_[64];
};

}  // namespace fl
