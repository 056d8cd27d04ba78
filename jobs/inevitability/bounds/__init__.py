"""Ceilings of robust accuracy that hold for every classifier, as functions and frozen objects on float64.

    bound = CubeBound(n=784, p=2, log_density=54.1, share=class_shares(...)[c].upper)
    bound.ceiling([1.0, 4.0])        the largest robust accuracy on the class at each epsilon, in [0, 1]
    bound.log_ceiling, vulnerable    its logarithm, not cut at 0; 1 - ceiling, without cancellation
    bound.first_useful, diameter     from where on it says something; how far two points can be apart
    bound.epsilon_for(0.9)           beyond where 90 % of the class are misclassified or have an adversarial example
    bound.verdict(), verdict(4.0)    in words: useful, vacuous or not applicable, and why

| module              | faces |
| base                | Bound, DensityBound, Verdict, Form: "sharp" (every share of a class) or "paper" (up to 1/2) |
| sphere              | SphereBound(n, log_density, share, form, metric): angles or chords |
| cube                | CubeBound(n, p, log_density, share, form): Lp for every p above 0, math.inf included |
| sparse              | SparseBound(n, log_density, share, form): L0, epsilon is a whole number of coordinates |
| generative          | GenerativeBound(lipschitz, shares, form): data made of Gaussian noise, all classes together |
| lipschitz           | estimate, modulus_estimate, upper_limit: of a torch generator |
| shares              | class_shares(classifier, shape, ...): of random points; ClassShare: interval, upper |
| facts               | facts(bound): how dense a class may be for the bound to say something, in sentences |
| resolution          | scale(b, q), replicate, average: images with every pixel replicated |
| adversarial_spheres | points, mean_distance_ceiling, largest_error: concentric spheres |
| caps                | log_measure, radius: caps of the sphere; log_sphere_area, log_ball_volume |
"""
