// Clipped sums of per-example gradients, compiled for one architecture and one processor: -DLAYERS='Conv<...>, ...'.
//
// Each example goes through the whole network, forward and backward, before the next one. So nothing of the size of a
// batch is ever written. See book_keeping.py for the arithmetic and its source.

#include <memory>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "layers.hpp"

// PyTorch's OpenMP, which the process has already loaded. Its threads spin for a while after an operation, so threads
// of our own would have to wait for their cores.
extern "C" {
__attribute__((weak)) void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);
__attribute__((weak)) int omp_get_thread_num();
__attribute__((weak)) int omp_get_num_threads();
}

namespace {

template <class Layer> struct Node {
    Layer layer;
    alignas(64) float out[(Layer::OUT + LANES - 1) / LANES * LANES], slope[(Layer::OUT + LANES - 1) / LANES * LANES];
};

// The number of weights in the first so many layers.
template <class... Layers> constexpr int weights_of(int layers) {
    int sum = 0, k = 0;
    return ((sum += k++ < layers ? Layers::WEIGHTS : 0), ...);
}

// One thread's network: the values of the current example in each layer.
template <class... Layers> class Network {
    static constexpr int DEPTH = sizeof...(Layers);
    static constexpr int offset(int layer) { return weights_of<Layers...>(layer); }
    template <int K> using At = std::tuple_element_t<K, std::tuple<Layers...>>;

    std::tuple<Node<Layers>...> nodes;
    const float* weights;

    template <int K> auto& node() { return std::get<K>(nodes); }
    template <int K> const float* input(const float* example) {
        if constexpr (K == 0) return example;
        else return node<K - 1>().out;
    }
    template <class F, int... K> static void in_order(F f, std::integer_sequence<int, K...>) { (f(Count<K>{}), ...); }

  public:
    static constexpr int CLASSES = At<DEPTH - 1>::OUT, FEATURES = At<0>::IN;
    static constexpr int WEIGHTS = weights_of<Layers...>(DEPTH);

    explicit Network(const float* weights) : weights(weights) {
        layers([&](auto k) { node<k>().layer.prepare(weights + offset(k)); });
    }

    template <class F> static void layers(F f) { in_order(f, std::make_integer_sequence<int, DEPTH>{}); }

    // Adds one example's clipped gradient to the sum, and returns its squared norm.
    float add_clipped(const float* example, int64_t label, float clip_norm, float* sum) {
        layers([&](auto k) { node<k>().layer.forward(input<k>(example), weights + offset(k), node<k>().out); });
        cross_entropy(label);
        float squared = 0;
        layers([&](auto forwards) {
            constexpr int k = DEPTH - 1 - forwards;
            auto& [layer, out, slope] = node<k>();
            if constexpr (At<k>::WEIGHTS > 0) squared += layer.squared(input<k>(example), slope);
            if constexpr (offset(k) > 0)  // else nothing before it has weights
                layer.backward(out, weights + offset(k), slope, node<k - 1>().slope);
        });
        if (!std::isfinite(squared)) return squared;  // clipping cannot bound it
        // Opacus' own clipping factor, with its guard against dividing by zero.
        const float factor = std::min(1.f, clip_norm / (std::sqrt(squared) + 1e-6f));
        layers([&](auto k) {
            if constexpr (At<k>::WEIGHTS > 0)
                node<k>().layer.add(factor, input<k>(example), node<k>().slope, sum + offset(k));
        });
        return squared;
    }

  private:
    void cross_entropy(int64_t label) {
        auto& [layer, logits, slope] = node<DEPTH - 1>();
        const float most = *std::max_element(logits, logits + CLASSES);
        float sum = 0;
        for (int k = 0; k < CLASSES; ++k) sum += slope[k] = std::exp(logits[k] - most);
        for (int k = 0; k < CLASSES; ++k) slope[k] = slope[k] / sum - (k == label);
    }
};

using Model = Network<LAYERS>;

struct Task {
    const float *weights, *inputs;
    const int64_t *labels, *sample, size;
    const float clip_norm;
    float *sums, *squared;
    std::vector<std::vector<float>> shares;  // of the threads, added in their order: the same sums every time

    void work(int64_t thread, int64_t threads) {
        auto model = std::make_unique<Model>(weights);
        auto& share = shares[thread];
        share.resize(Model::WEIGHTS);
        for (int64_t k = size * thread / threads; k < size * (thread + 1) / threads; ++k) {
            const float* example = inputs + sample[k] * Model::FEATURES;
            squared[k] = model->add_clipped(example, labels[sample[k]], clip_norm, share.data());
        }
    }

    void run(unsigned threads) {
        shares.resize(threads);
        if (GOMP_parallel && omp_get_thread_num && omp_get_num_threads) {
            const auto part = [](void* task) {
                static_cast<Task*>(task)->work(omp_get_thread_num(), omp_get_num_threads());
            };
            GOMP_parallel(part, this, threads, 0);
        } else {
            std::vector<std::thread> crew;
            for (unsigned k = 1; k < threads; ++k) crew.emplace_back(&Task::work, this, k, threads);
            work(0, threads);
            for (auto& member : crew) member.join();
        }
        for (const auto& share : shares)
            for (size_t k = 0; k < share.size(); ++k) sums[k] += share[k];
    }
};

}  // namespace

// Adds the clipped gradients of the examples sample[0], ..., sample[size - 1] to sums, and writes their squared norms
// before clipping. An example whose norm is not finite is left out.
extern "C" void add_clipped_sums(const float* weights, const float* inputs, const int64_t* labels,
                                 const int64_t* sample, int64_t size, float clip_norm, float* sums, float* squared,
                                 unsigned threads) {
    Task{weights, inputs, labels, sample, size, clip_norm, sums, squared, {}}.run(threads);
}
