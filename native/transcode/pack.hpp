// Tokens to coefficients and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/bits.hpp"
#include "transcode/coefficients.hpp"
#include "transcode/layout.hpp"
#include "transcode/orient.hpp"
#include "transcode/tokens.hpp"

namespace fl {

// Tokens of one scan, in one interval, to coefficients.
inline void unpack(const Visit& visit, const Token* token, CoefficientPlane* planes) {
    int predicted[4] = {};
    for (int row = 0; row < visit.mcu_rows; ++row)
        for (int column = 0; column < visit.mcu_columns; ++column)
            for (int b = 0; b < visit.blocks; ++b) {
                const Visit::Block& at = visit.block[b];
                const int y = row * visit.step_rows[at.component] + at.row;
                const int x = column * visit.step_columns[at.component] + at.column;
                int16_t* const block = planes[at.component].block(y, x);
                const int size = *token & 0xFF;
                predicted[at.component] += extend(*token++ >> kExtraShift, size);
                block[0] = static_cast<int16_t>(predicted[at.component]);
                for (int k = 0; k < 63; ++token) {
                    const int symbol = *token & 0xFF, ac_size = symbol & 15;
                    if (symbol == 0) {
                        ++token;
                        break;
                    }
                    k += (symbol >> 4) + 1;
                    block[k] = static_cast<int16_t>(extend(*token >> kExtraShift, ac_size));
                }
            }
}

// Tokens of one block whose coefficients are in the range of baseline; returns their end.
inline Token* pack_block(const int16_t* block, int chroma, int& written, Token* token) {
    const int change = block[0] - written;
    written = block[0];
    const int dc_size = category(change);
    *token++ = make_token(chroma, dc_size, extra_bits(change, dc_size));
    int zeros = 0;
    for (int k = 1; k < 64; ++k) {
        const int value = block[k];
        if (value == 0) {
            ++zeros;
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

// The coefficients of a picture to the tokens of one interleaved scan, turned on the way.
inline Status pack(CoefficientPlane (&planes)[4], const Layout& stored, Orientation orientation,
                   TokenStream& stream) {
    stream.clear();
    for (int i = 0; i < stored.num_components; ++i) planes[i].fill_padding();
    const OrientedPlane oriented[4] = {{planes[0], orientation},
                                       {planes[1], orientation},
                                       {planes[2], orientation},
                                       {planes[3], orientation}};
    int written[4] = {};
    int until = 0;
    for (int row = 0; row < stored.mcu_rows; ++row) {
        for (int column = 0; column < stored.mcu_columns; ++column) {
            if (!stream.reserve_mcu()) return kOutOfMemory;
            if (until-- == 0) {
                until = stream.interval ? stream.interval - 1 : -1;
                std::memset(written, 0, sizeof written);
                if (!stream.begin_interval()) return kOutOfMemory;
            }
            Token* token = stream.tokens.data() + stream.num_tokens;
            for (int i = 0; i < stored.num_components; ++i) {
                const ComponentLayout& component = stored.components[i];
                for (int b = 0; b < component.h * component.v; ++b) {
                    int16_t changed[64];
                    const int16_t* const block =
                        oriented[i].block(row * component.v + b / component.h,
                                          column * component.h + b % component.h, changed);
                    if (category(block[0] - written[i]) > kMaxDcCategory) return kCoefficientRange;
                    token = pack_block(block, i > 0, written[i], token);
                }
            }
            stream.num_tokens = size_t(token - stream.tokens.data());
        }
    }
    return kOk;
}

}  // namespace fl
