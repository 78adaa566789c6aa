// The iSTFT head for small windows (StyleTTS 2: n_fft 20, hop 5), one thread a frame.
//
// Why not Triton: neighbouring frames overlap, so samples must cross threads; here they do through shared memory, and
// the inverse DFT of a frame lives in the registers of its thread, its 20 x 22 products unrolled at compile time.
// A block of THREADS frames makes THREADS - COUNT + 1 hops: its first COUNT - 1 frames are computed by two blocks.
//
// Compiled per shape and type: -DSIZE=20 -DHOP=5 -DFORM=2 -DTYPE=float. Compiled by a C++ compiler instead of nvcc, the
// same two phases run thread after thread, which is how they are tested without a GPU.

#ifdef __CUDACC__
#ifdef HEADER
#include HEADER
#endif
#define DEVICE __device__ __forceinline__
#else
#include <cmath>
#define DEVICE inline
#endif

constexpr int THREADS = 128;
constexpr int BINS = SIZE / 2 + 1;
constexpr int COUNT = (SIZE + HOP - 1) / HOP;  // hops a window spans
constexpr int REST = SIZE - HOP;               // samples of the tail
constexpr int ROWS = THREADS - COUNT + 1;      // hops a block finishes
// Sample n of thread t lies at n * STRIDE + t. Lanes of the second phase walk through HOP samples of a few threads;
// this remainder modulo the 32 banks keeps them apart.
constexpr int STRIDE = THREADS + (31 + HOP) / HOP;

struct Arguments {
    const TYPE* x;        // (batch, 2 * BINS, frames) by strides
    const float* tail;    // (batch, REST)
    const float* matrix;  // (2 * BINS, SIZE)
    TYPE* y;              // (batch, frames * HOP)
    float* after;         // (batch, REST)
    long long row, channel, frame;
    int frames;
};

DEVICE float sine_near_zero(float r) {
    const float s = r * r;
    float p = 2.6057506414706747e-06f;
    p = p * s - 1.9809590071742588e-04f;
    p = p * s + 8.333066082196776e-03f;
    p = p * s - 1.6666659544545798e-01f;
    return r + r * s * p;
}

DEVICE float cosine_near_zero(float r) {
    const float s = r * r;
    float p = -2.619354759025163e-07f;
    p = p * s + 2.476929145463757e-05f;
    p = p * s - 1.3888568970900923e-03f;
    p = p * s + 4.16666557644524e-02f;
    return 1.0f - 0.5f * s + s * s * p;
}

// x = k pi + r; returns r, and whether k is odd: then both sine and cosine of x are those of r, negated.
DEVICE float reduce_half_turns(float x, bool& odd) {
    const float k = floorf(x * 0.3183098861837907f + 0.5f);
    odd = k - 2.0f * floorf(0.5f * k) == 1.0f;
    return x - k * 3.140625f - k * 9.67502593994140625e-4f - k * 1.509957990978376432e-7f;
}

// First phase: the windowed samples of one frame into the block's shared `frames`.
DEVICE void synthesise(const Arguments& a, int block, int row, int thread, const float* matrix, float* frames) {
    const long long t = (long long)block * ROWS - (COUNT - 1) + thread;
    float samples[SIZE];
    for (int n = 0; n < SIZE; ++n) samples[n] = 0.0f;
    if (t >= 0 && t < a.frames) {
        const TYPE* x = a.x + row * a.row + t * a.frame;
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int k = 0; k < BINS; ++k) {
            float real = (float)x[k * a.channel];
            float imaginary = (float)x[(BINS + k) * a.channel];
            if (FORM != 0) {
                bool odd = false;
                float phase = reduce_half_turns(imaginary, odd);
                if (FORM == 2) {
                    phase = odd ? -sine_near_zero(phase) : sine_near_zero(phase);
                    odd = false;  // a sine is within one quarter turn already
                }
                const float magnitude = odd ? -expf(real) : expf(real);
                real = magnitude * cosine_near_zero(phase);
                imaginary = magnitude * sine_near_zero(phase);
            }
            const float* from_real = matrix + k * SIZE;
            const float* from_imaginary = matrix + (BINS + k) * SIZE;
#ifdef __CUDACC__
#pragma unroll
#endif
            for (int n = 0; n < SIZE; ++n) samples[n] += real * from_real[n] + imaginary * from_imaginary[n];
        }
    }
    for (int n = 0; n < SIZE; ++n) frames[n * STRIDE + thread] = samples[n];
}

// Second phase: the block's finished samples, neighbouring threads writing neighbouring samples.
DEVICE void overlap(const Arguments& a, int block, int row, int thread, const float* frames) {
    for (int o = thread; o < ROWS * HOP; o += THREADS) {
        const int local = o / HOP + COUNT - 1, j = o % HOP;
        const long long t = (long long)block * ROWS + o / HOP;
        float sum = 0.0f;
        for (int m = 0; m < COUNT; ++m)
            if (m * HOP + j < SIZE) sum += frames[(m * HOP + j) * STRIDE + local - m];
        const long long at = t * HOP + j, beyond = (t - a.frames) * HOP + j;
        if (at < REST) sum += a.tail[(long long)row * REST + at];
        if (t < a.frames) a.y[(long long)row * a.frames * HOP + at] = (TYPE)sum;
        else if (beyond < REST) a.after[(long long)row * REST + beyond] = sum;
    }
}

#ifdef __CUDACC__
extern "C" __global__ void __launch_bounds__(THREADS) istft(const Arguments a) {
    __shared__ __align__(16) float matrix[2 * BINS * SIZE];
    __shared__ float frames[SIZE * STRIDE];
    for (int i = threadIdx.x; i < 2 * BINS * SIZE; i += THREADS) matrix[i] = a.matrix[i];
    __syncthreads();
    synthesise(a, blockIdx.x, blockIdx.y, threadIdx.x, matrix, frames);
    __syncthreads();
    overlap(a, blockIdx.x, blockIdx.y, threadIdx.x, frames);
}
#else
extern "C" void istft(const Arguments* a, int blocks, int batch) {
    static float frames[SIZE * STRIDE];
    for (int row = 0; row < batch; ++row)
        for (int block = 0; block < blocks; ++block) {
            for (int thread = 0; thread < THREADS; ++thread) synthesise(*a, block, row, thread, a->matrix, frames);
            for (int thread = 0; thread < THREADS; ++thread) overlap(*a, block, row, thread, frames);
        }
}
#endif
