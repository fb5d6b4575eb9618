"""What each figure means to a reader who is no engineer: the one table of finding ids, questions and plain words.

A study may write any finding; an id that is not in EXPLANATIONS is shown under "Other figures" with what its own
fields say. Ids may be globs: `membership-*-auc` explains the AUC of every membership attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from trustnlp.results import Direction, Finding, Tone, Verdict


@dataclass(frozen=True)
class Question:
    """A question that a reviewer asks, answered by one row of verdicts and one section.

    Args:
        name: anchor of the section.
        ask: the question.
        short: its name in a list of contents.
        how: how it was examined, in a few sentences.
        unasked: what to say of a model that no finding answers it for.
        facts: how many figures its verdict quotes.
    """

    name: str
    ask: str
    short: str
    how: str
    unasked: str = "Not measured for this model."
    facts: int = 1


QUESTIONS = (
    Question(
        "membership",
        "Can an attacker tell who is in the training data?",
        "Who is in the data",
        "We play the attacker. Given texts of which some were used in training and some were not, the attack looks "
        "only at the model's answers and guesses which are which. A model that has learned general patterns gives the "
        "attacker nothing; a model that has memorised gives its training texts away.",
    ),
    Question(
        "secrets",
        "Can secrets be pulled out of the model?",
        "Secrets",
        "Before training we planted made-up secrets (“canaries”, such as a random code) in the training data, some "
        "once and some many times. After training we ask the model to rank every possible secret of the same form and "
        "look where the planted one lands. Copies add up: a budget that protects one text protects a secret that "
        "occurs in k texts k times less, so compare the secrets planted once with those planted often.",
    ),
    Question(
        "budget",
        "Is the promised privacy budget kept?",
        "Privacy budget",
        "Differential privacy is a promise with a number: epsilon limits how much any one unit (one text, unless the "
        "guarantee names another) can change what the model does, against every attacker, including those nobody has "
        "invented yet. Attacks show what leaks today; the budget limits what can ever leak.",
        "No budget was promised for this model.",
    ),
    Question(
        "audit",
        "Does an attack contradict the promise?",
        "Audit of the promise",
        "A promise is only as good as the code that keeps it. Canaries go into training by the toss of a coin, and an "
        "attack guesses which. An attacker who is right more often than the promised epsilon allows has shown that the "
        "promise is broken. How much an attack can show at all is limited by its number of canaries.",
        "No audit was run for this model.",
    ),
    Question(
        "utility",
        "Does it work?",
        "Usefulness",
        "The model answers texts that it has never seen, and its answers are compared with the right ones.",
        facts=2,
    ),
    Question(
        "fairness",
        "Does it work equally well for all groups?",
        "Fairness",
        "The same test, counted separately for each group. Small groups give wide intervals: where too few "
        "texts were available to tell, we say so rather than call it fair.",
    ),
    Question(
        "soundness",
        "Can the attack figures be trusted?",
        "Soundness of the test",
        "An attack can look successful for a wrong reason: when the texts used in training differ visibly from those "
        "that were not. A classifier that never sees the model tries to tell the two apart. If it can, the attack "
        "figures say something about the texts and not about the model.",
    ),
    Question(
        "devices",
        "How is the data spread over the devices?",
        "Devices",
        "Federated learning leaves texts on the devices where they are. The more a device differs from the others, in "
        "what its texts are about or in how many it has, the harder it is to learn one model that serves them all.",
    ),
    Question("other", "What else was measured?", "Other figures", "Further figures that this run has recorded."),
)


@dataclass(frozen=True)
class Explanation:
    """What a finding means.

    Args:
        id: the finding's id, or a glob over ids.
        question: name of the question it answers.
        says: the figure as a sentence; `{value}` is filled in.
        means: what the figure is.
        good: what a good figure would be.
        certainty: how sure we are, where the figure is not an estimate with an interval.
    """

    id: str
    question: str
    says: str
    means: str
    good: str
    certainty: str = ""


EXPLANATIONS = (
    Explanation(
        "partition",
        "devices",
        "Which device a text is on explains {value} of the variation of labels.",
        "How unlike the mixes of labels are from device to device, beyond what chance makes of devices with few texts. "
        "0% is a random spread, 100% one label a device; mixes drawn with concentration alpha make it 1 / (1 + alpha).",
        "No figure of a model: it says how hard the task is. Results on a random spread do not hold for real devices.",
        "Counted, not estimated.",
    ),
    Explanation(
        "claim",
        "other",
        "The figure that decides is {value}.",
        "What a study was made for: whether a claim of the literature holds here, by a rule fixed before measuring.",
        "Reproduced.",
    ),
    Explanation(
        "average-accuracy",
        "other",
        "After the last period {value} of the answers are right, over the texts of all periods.",
        "Texts come in periods and are deleted afterwards. After the last one the model is tested on held-out texts "
        "of every period, and the periods count alike.",
        "That of a model which had all texts at once.",
    ),
    Explanation(
        "forgetting",
        "other",
        "Of what was once right about earlier periods, {value} is lost at the end.",
        "For every earlier period, the accuracy when it was best less that at the end.",
        "0. Below it, earlier periods are known better than ever.",
    ),
    Explanation(
        "backward-transfer",
        "other",
        "What came later changed the accuracy on earlier periods by {value}.",
        "The accuracy on an earlier period's texts at the end, less that when that period was over.",
        "Above 0: then later texts have taught what earlier ones asked.",
    ),
    Explanation(
        "all-data-gap",
        "other",
        "A model that has all texts at once is better by {value}.",
        "The same rounds without periods, as if no text were ever deleted, tested on the same texts.",
        "0: then deleting the past costs nothing.",
    ),
    Explanation(
        "learning-curve-area",
        "other",
        "Over all rounds the model is right in {value} of the cases on average.",
        "Accuracy is measured every few rounds; this is its mean over the rounds, so both speed and end count.",
        "That of the fastest way to train.",
    ),
    Explanation(
        "learning-curve-lead",
        "other",
        "Over all rounds the accuracy is {value} above that of the other way of selecting devices.",
        "The mean accuracy over all rounds, compared seed by seed on the same devices and texts.",
        "Above 0.",
    ),
    Explanation(
        "rounds-to-target",
        "other",
        "The target is reached after {value}.",
        "How many rounds it takes until the accuracy is first at the target, added up over periods. A training that "
        "never gets there counts with all its rounds, so that the true mean may be larger; the details say how many.",
        "Few, with none that never gets there.",
    ),
    Explanation(
        "texts-to-target",
        "other",
        "The target is reached after devices have trained on {value}.",
        "The same, counted in texts that devices have trained on. It tells what a round hides: active devices bring "
        "many texts.",
        "Few, with none that never gets there.",
    ),
    Explanation(
        "rounds-saved",
        "other",
        "The target is reached earlier by {value} of the rounds than with the other way of selecting devices.",
        "Rounds until the accuracy is at the target, compared seed by seed, as a share of all rounds.",
        "Above 0.",
    ),
    Explanation(
        "texts-saved",
        "other",
        "The target is reached with fewer texts, by {value}, than with the other way of selecting devices.",
        "The same in texts that devices train on, as a share of those that both trainings were observed for.",
        "Above 0. Below it, faster rounds are paid for with more computation on devices.",
    ),
    Explanation(
        "rounds-saved-excess",
        "other",
        "In the continual setting the share of rounds saved is larger by {value}.",
        "What selection by activity saves where texts come and go, less what it saves where all are there at once.",
        "Above 0, if the claim holds.",
    ),
    Explanation(
        "largest-device-texts",
        "other",
        "The busiest device of a round trains on {value}.",
        "A round is over when its slowest device is done; this is the most that a single device has to do in a round, "
        "on average.",
        "Few: the others wait for it.",
    ),
    Explanation(
        "training-time-ratio",
        "other",
        "A private step takes {value} times a plain one.",
        "How long a whole training step takes with clipping, noise and update, where the plain step of the same batch "
        "in the same round takes 1.",
        "1, or less.",
    ),
    Explanation(
        "process-speed-up",
        "other",
        "Several processes are {value} times as fast as one.",
        "The same logical batch, clipped by one process and shared among several, in turns.",
        "The number of processes, where each has a device of its own.",
    ),
    Explanation(
        "held-out-loss",
        "utility",
        "A word that the model has never seen in training costs it {value}.",
        "How badly a language model predicts new text: the negative logarithm of the probability that it gives to each "
        "word. Guessing evenly among 10,000 words costs 9.2 nats.",
        "As low as the plain model's; the difference is the price of privacy.",
    ),
    Explanation(
        "reference-lead",
        "other",
        "With a reference model, the attack recognises {value} more of the training texts at 1% false alarms.",
        "How much an attacker gains who has a second model, which never saw the texts, to tell what is unusual: over "
        "the best of the attacks that have none.",
        "No figure of the model itself; it compares attacks.",
    ),
    Explanation(
        "smoothing-lead",
        "other",
        "The smoothed error-zone score recognises {value} more of the training texts at 1% false alarms.",
        "The published score ranks texts that the model knows by heart below all others; smoothed, it does not.",
        "No figure of the model itself; it compares attacks.",
    ),
    Explanation(
        "weights-difference",
        "other",
        "The weights differ by {value} of their length from those of one process.",
        "Draws and noise are the same whatever the number of processes; only sums are taken in another order.",
        "Rounding: 0.00001 or less in single precision.",
    ),
    Explanation(
        "membership-*-tpr-at-1pct-fpr",
        "membership",
        "{value} of the training texts are recognised by an attacker who accepts 1% false alarms.",
        "How many training texts the attack recognises with confidence, when only 1 in 100 outsiders is wrongly "
        "accused. It counts the people who are really exposed, where an average would hide them.",
        "About 1%, which is what guessing gives.",
    ),
    Explanation(
        "membership-*-tpr-at-0-1pct-fpr",
        "membership",
        "{value} of the training texts are recognised by an attacker who accepts 0.1% false alarms.",
        "The same for a very careful attacker, who wrongly accuses 1 in 1,000 outsiders. It needs more than 1,000 "
        "outsiders to be measured at all.",
        "About 0.1%, which is what guessing gives.",
    ),
    Explanation(
        "membership-*-auc",
        "membership",
        "Shown one training text and one outside text, the attack ranks them correctly with AUC {value}.",
        "The chance that the attack finds a training text more suspicious than an outside one (the area under the ROC "
        "curve). It is an average over all texts, so it can look harmless while a few people are fully exposed.",
        "50% (0.5): a coin toss.",
    ),
    Explanation(
        "risk-by-*",
        "membership",
        "In the most exposed group, an attacker recognises {value} of the training texts beyond what chance gives.",
        "Texts in groups (by label, length, activity of the user, or group), and how many more of a group's training "
        "texts than of its outside texts the attack names, at one threshold for all. An average would hide them.",
        "0%: training texts are named no more often than outside ones, in every group.",
    ),
    Explanation(
        "canary-extraction-rate",
        "secrets",
        "{value} of the planted secrets come out as the model's first guess.",
        "Of all planted secrets, how many the model ranks first among every possible secret of that form: an attacker "
        "with open access to the model reads these out exactly.",
        "0%.",
    ),
    Explanation(
        "canary-rank",
        "secrets",
        "Among all that it could have been, the planted secret comes {value} from the top.",
        "The model ranks every possible secret, and the figure is how far down the planted one stands: an attacker who "
        "tries secrets in this order needs so large a share of all tries. No search by the model's loss can do better, "
        "so it tells a secret that was not memorised from a search that has failed.",
        "50%, the middle, where the model knows nothing; 0% is the first guess.",
    ),
    Explanation(
        "canary-exposure",
        "secrets",
        "A planted secret is exposed by {value}: each bit halves the guesses that an attacker needs.",
        "How much easier the model makes it to guess a secret that it was trained on. Zero to two bits is what chance "
        "gives; a four-digit code that is fully memorised has 13.3 bits.",
        "About 1.4 bits on average, which is what a model gives that has never seen the secret.",
    ),
    Explanation(
        "canary-exposure-sampled",
        "secrets",
        "Among others drawn at random, a planted secret is exposed by {value}.",
        "The same for secrets with too many possible values to try them all: each is ranked among a sample of others. "
        "The test for memorisation is as strict as with all of them, but no more can show than the sample is large.",
        "About 1.4 bits on average, which is what a model gives that has never seen the secret.",
    ),
    Explanation(
        "canary-exposure-fitted",
        "secrets",
        "Extrapolated from that sample, a planted secret is exposed by {value}.",
        "How far up a secret would rank among all possible ones, if the model's opinion of them follows the bell-like "
        "curve that was fitted to the sample. It is left out where the sample contradicts that curve; elsewhere, too, "
        "it is no more than an extrapolation.",
        "About 1.4 bits on average, which is what a model gives that has never seen the secret.",
    ),
    Explanation(
        "extraction-*-texts",
        "secrets",
        "Given its beginning, the model recites {value} of the training texts.",
        "The model is shown the beginning of a training text and goes on writing; counted is how often what it writes "
        "is the rest of that text, word for word. The same is tried with texts it never saw, as some anyone could "
        "complete.",
        "No more than of texts that it was never trained on.",
    ),
    Explanation(
        "extraction-*-canaries",
        "secrets",
        "Given the words before it, the model spells out {value} of the planted secrets.",
        "The simplest attack there is: let the model go on writing after the words that stand before a secret, and "
        "read it.",
        "0%.",
    ),
    Explanation(
        "inversion-exact-match",
        "secrets",
        "{value} of the planted secrets are read out of the model exactly, by gradients alone.",
        "Who holds the model, and knows the words before a secret and how the text was labelled, can search for the "
        "words that the model itself finds most fitting. This is how often all of them are right.",
        "0%: a guess at random is hardly ever right.",
    ),
    Explanation(
        "inversion-hamming",
        "secrets",
        "Of the words of a planted secret, that attack gets {value} wrong.",
        "The share of a secret's words that are wrong in their places, on average; so it also sees secrets that come "
        "out in part.",
        "What a guess at random gets wrong: 90% of digits.",
    ),
    Explanation(
        "epsilon",
        "budget",
        "The training spent an epsilon of {value}.",
        "The strength of the guarantee: whatever an outsider believes about one person before seeing the model, the "
        "odds can change by at most a factor of e to the power epsilon through that person's data.",
        "At or below the promise. As a rule of thumb, up to 1 is strong, up to 10 is common in practice, and beyond "
        "that the guarantee alone says little.",
        "It is proved, not estimated: it holds as long as sampling, clipping and noise were done as the guarantee "
        "says.",
    ),
    Explanation(
        "epsilon-ladder",
        "audit",
        "Attacks show that epsilon is at least {value}.",
        "The best of several lower bounds, all of which hold at once with the stated confidence, beside the promise. "
        "“Violated”: an attack did better than the promise allows. “Consistent”: none did, though one could have. "
        "“Uninformative”: with so few canaries, not even a perfect attack could have contradicted the promise.",
        "0, or anything below the promise, by an audit that could have shown more than the promise.",
        "It is a lower bound: the true epsilon may be larger by any amount, and is smaller only in the few runs that "
        "the level (95% unless said otherwise) leaves to chance.",
    ),
    Explanation(
        "epsilon-lower-bound-*",
        "audit",
        "One attack shows that epsilon is at least {value}.",
        "How large epsilon must be for training to explain how often this attack was right. A perfect attack on as "
        "many canaries would have shown the resolution cap, and none could have shown more.",
        "0, where the cap is well above the promise.",
        "It is a lower bound: the true epsilon may be larger by any amount, and is smaller only in the few runs that "
        "the level (95% unless said otherwise) leaves to chance.",
    ),
    Explanation(
        "false-alarm-rate-*",
        "soundness",
        "On models that never saw the canaries, {value} of the audits raise a false alarm.",
        "The same audit, repeated where there is nothing to find: whatever it shows then is a false alarm.",
        "At most 5%, what an audit at 95% confidence allows itself.",
    ),
    Explanation(
        "label-accuracy",
        "utility",
        "{value} of unseen texts get the right label.",
        "How often the model chooses the right label (such as the user's intent) for a text that it has never seen.",
        "As high as the plain model's; the difference is the price of privacy.",
    ),
    Explanation(
        "test-loss",
        "utility",
        "The model's loss on the test split is {value}.",
        "How well the model predicts texts that it was not trained on. What it answers is judged by the figures in the "
        "details: F1 and exact match of answers, ROUGE-L, BLEU and chrF of texts written.",
        "As low as that of the same model trained without devices or privacy; the difference is their price.",
    ),
    Explanation(
        "slot-f1",
        "utility",
        "Slots (names, places, times in the text) are found with an F1 of {value}.",
        "How well the model marks the pieces of information inside a text. F1 balances what it misses against what it "
        "marks wrongly; a piece counts only if it is found in full.",
        "As high as the plain model's; 100% would be perfect.",
    ),
    Explanation(
        "label-error-gap",
        "fairness",
        "Between the best- and the worst-served group the error rate differs by {value}.",
        "The largest difference in error rate between any two groups.",
        "0%. The verdict asks whether the gap stays within a margin, and whether we could have seen a larger one.",
    ),
    Explanation(
        "slot-f1-gap",
        "fairness",
        "Between the best- and the worst-served group the slot F1 differs by {value}.",
        "The largest difference in slot F1 between any two groups.",
        "0%.",
    ),
    Explanation(
        "on-device-*-by-*",
        "fairness",
        "In the worst-served group of devices the figure is {value}.",
        "Devices measured the model on texts that never left them, and only a sum with noise was read, separately for "
        "each group (such as people who write little, or much). The interval covers the noise and the choice of "
        "devices, for all groups at once; a group with too few devices to be told from noise has no figure.",
        "That of all devices together.",
    ),
    Explanation(
        "on-device-*",
        "utility",
        "On the devices, on texts that never left them, the figure is {value}.",
        "Every device measured the model on its own texts, and only a sum over all devices, with noise, was read. Each "
        "device counts up to a fixed number of texts. The interval covers the noise and the choice of devices.",
        "That of texts which may be read.",
    ),
    Explanation(
        "pseudo-label-precision",
        "utility",
        "Of the labels that devices give their own texts and learn from, {value} are right.",
        "Devices without labels learn from the model's own answers where it is confident. A small random sample of "
        "texts was labelled by people, and compared.",
        "Near 100%: what is wrong here is learned.",
    ),
    Explanation(
        "pseudo-label-coverage",
        "utility",
        "Devices learn from {value} of their texts.",
        "The share of texts whose generated label is confident enough to be used.",
        "High where the labels are also right; a stricter threshold uses fewer and better ones.",
    ),
    Explanation(
        "pseudo-label-overconfidence",
        "utility",
        "The model believes in its labels by {value} more than they deserve.",
        "Mean confidence of the generated labels less the share that is right.",
        "0. Above it, a threshold of 95% lets through labels that are right less often than that.",
    ),
    Explanation(
        "pseudo-label-calibration-error",
        "utility",
        "Confidence and accuracy of generated labels lie {value} apart.",
        "Labels are put in order of confidence and cut into parts; in each, mean confidence is compared with the share "
        "that is right. Even a perfect model shows more than 0 here by chance; how much stands in the details.",
        "What a perfectly calibrated model would show by chance.",
    ),
    Explanation(
        "feedback-accuracy",
        "utility",
        "By how people reacted, {value} of the answers were right.",
        "Nobody has labelled these texts. People repeat themselves or interrupt more often after a wrong answer; where "
        "how often is known, the share of right answers follows.",
        "That of texts which may be read.",
    ),
    Explanation(
        "label-generation-gain",
        "utility",
        "Texts without labels raise the accuracy by {value}.",
        "The same few labels and the same number of steps on them, with and without devices that learn from texts "
        "which nobody has labelled; median over several trainings.",
        "Above 0, towards what labels for all texts would bring.",
    ),
    Explanation(
        "heavy-hitters-found",
        "utility",
        "Of the words that many devices share, {value} are found without reading any text.",
        "Devices vote letter by letter for a word of theirs, and what too few share never comes out.",
        "100%.",
    ),
    Explanation(
        "histogram-error",
        "utility",
        "A histogram over devices is wrong by at most {value} of the devices.",
        "Each device says, with noise, which kinds of texts it has; compared with the true counts, which only a "
        "simulation knows.",
        "Within the margin that was promised with it.",
    ),
    Explanation(
        "weat-*",
        "fairness",
        "Words of the two groups differ in what their vectors lie near to, with effect size {value}.",
        "Two sets of words (such as men's and women's names) are compared by how much nearer each word's vector lies "
        "to one set of attributes (career) than to the other (family); the difference of the means is divided by the "
        "spread. The interval says what other words of the same kinds would give.",
        "0: neither set is nearer to either set of attributes. The largest possible figure is about 2.",
    ),
    Explanation(
        "seat-*",
        "fairness",
        "Plain sentences about the two groups differ in what they lie near to, with effect size {value}.",
        'The same as for word vectors, with sentences that say nothing but their word ("This is Amy."). All '
        "sentences of one word count as one.",
        "0: neither set is nearer to either set of attributes.",
    ),
    Explanation(
        "ceat-*",
        "fairness",
        "Words of the two groups, as they occur in real sentences, differ in what they lie near to, with effect size "
        "{value}.",
        "The same as for word vectors, with the model's representation of each word in sentences drawn from a corpus, "
        "many times over. A word counts once, however often it was drawn.",
        "0: neither set is nearer to either set of attributes.",
    ),
    Explanation(
        "stereoset-*",
        "fairness",
        "Of a stereotype and its opposite, the model finds the stereotype likelier in {value} of 100 cases.",
        "Each item has a sentence with a stereotype, one with its opposite and one without sense; the figure is the "
        "mean over the terms that the stereotypes are about. The details tell how often the model prefers sense to "
        "nonsense (LMS), and the figure without items that are flagged as invalid.",
        "50: neither is preferred.",
    ),
    Explanation(
        "crows-pairs*",
        "fairness",
        "Of two sentences that differ in the group they speak of, the model finds the one that stereotypes more "
        "likelier in {value} of 100 pairs.",
        "Only what both sentences share is compared in masked models, the whole sentence in others. The details tell "
        "the figure without pairs that are flagged as invalid.",
        "50: neither is preferred.",
    ),
    Explanation(
        "ilps-*",
        "fairness",
        "Naming one kind of occupation rather than the other shifts the model from one group to the other by {value}.",
        "A masked model fills a gap with a word of one group or of the other, once with the occupation (or another "
        "attribute) in the sentence and once with that hidden too; the figure is how much more the attributes of the "
        "first list speak for the first group than those of the second list do.",
        "0: what somebody does should not decide who the model takes them for.",
    ),
    Explanation(
        "counterfactual-flip-rate",
        "fairness",
        "{value} of the answers change when only the words that signal the group change.",
        "The same text is put to the model twice, once as written and once with the group's signal words exchanged. "
        "The figure counts how often the answer changes though the meaning does not.",
        "0%: who speaks should not decide what is understood.",
    ),
    Explanation(
        "counterfactual-probability-change",
        "fairness",
        "Probabilities of the answers move by {value} on average when only the words that signal the group change.",
        "The same text is put to the model twice, once as written and once with the group's signal words exchanged. "
        "The figure says how far the probabilities move, even where the answer stays the same.",
        "0%: who speaks should not decide what is understood.",
    ),
    Explanation(
        "prediction-sensitivity",
        "fairness",
        "The answer's probability has sensitivity {value} to the words that tell the group.",
        "For each text: how much the probability of the answer would change if the inner representation of the words "
        "that tell the group moved a little, added up over those words. Every model that reads is sensitive to words; "
        "what counts is the excess over the other words of the same texts. The figure depends on the scale of the "
        "model's representations, and is small where the model is certain, even if it is certain because of the group.",
        "0: the answer does not depend on the words that tell the group.",
    ),
    Explanation(
        "planted-rank-agreement",
        "fairness",
        "The measure's ranking of models agrees with the bias planted in them by {value}.",
        "Models are trained on corpora that differ only in how strongly the label depends on the group. Spearman's "
        "rank correlation says whether the measure orders the models as the planted strength does.",
        "1: a stronger bias always gives a larger figure. 0: the measure says nothing about the bias.",
    ),
    Explanation(
        "rank-agreement-lead",
        "fairness",
        "Prediction sensitivity agrees with the planted bias by {value} more than counterfactual flips do.",
        "The difference between two rank correlations with the planted strength, over the same models.",
        "At or above 0: prediction sensitivity follows the bias at least as well.",
    ),
    Explanation(
        "*-by-activity-decile",
        "fairness",
        "The tenth of the devices that the model serves worst gets {value}.",
        "Devices are ordered by how much they have written and cut into tenths, and each tenth is measured by itself: "
        "as accuracy, the share of right answers, or as loss, which is high where the model is wrong.",
        "The same as for all texts together: little activity should not mean poor service.",
    ),
    Explanation(
        "*-light-half",
        "fairness",
        "The half of the devices that writes less gets {value}.",
        "The accuracy or the loss of the texts of the less active half of the devices.",
        "The same as for the more active half.",
    ),
    Explanation(
        "*-heavy-half",
        "fairness",
        "The half of the devices that writes more gets {value}.",
        "The accuracy or the loss of the texts of the more active half of the devices.",
        "The same as for the less active half.",
    ),
    Explanation(
        "*-half-gap",
        "fairness",
        "Devices that write less are served worse than those that write more by {value}.",
        "The difference in accuracy or loss between the less and the more active half of the devices.",
        "0. Below 0, those that write less are served better.",
    ),
    Explanation(
        "*-by-group",
        "fairness",
        "The group that the model serves worst gets {value}.",
        "The accuracy or the loss of each group's texts; the worst of them is shown.",
        "The same as for all texts together.",
    ),
    Explanation(
        "*-per-device",
        "fairness",
        "A device gets {value} on average.",
        "The accuracy or the loss of each device by itself, meaned over devices: those that write much and those that "
        "write little count alike.",
        "The same as for all texts together; worse means that those who write much are served better.",
    ),
    Explanation(
        "light-half-lead",
        "fairness",
        "The half of the devices that writes less gets {value} more than with the other way of selecting devices.",
        "The accuracy for the less active half of the devices, less what the same training gives them with the other "
        "way of selecting devices.",
        "0 or above: that training is faster should not be paid for by those who write little.",
    ),
    Explanation(
        "*-worst-tenth-of-devices",
        "fairness",
        "Nine of ten devices are served at least as well as with {value}.",
        "The accuracy or the loss of the device at the tenth part of all, counted from the worst.",
        "Not far from the mean over devices. With few texts of each device, part of the distance is chance.",
    ),
    Explanation(
        "blind-classifier-auc",
        "soundness",
        "Without the model, training and outside texts are told apart with AUC {value}.",
        "How well a simple classifier tells training texts from outside texts without ever seeing the model.",
        "50% (0.5). Well above it, the attack figures of this report are biased upwards and must not be compared.",
    ),
)

REGIMES = {
    "plain": "trained the usual way, without protection",
    "private": "trained with differential privacy",
    "federated": "trained on many devices, without protection",
    "federated-private": "trained on many devices with differential privacy",
    "audited": "an existing model, not trained here",
}

# Detail of a finding -> its name for the reader; the order is the order of the rows.
DETAILS = {
    "spread": "How texts are spread",
    "statement": "The guarantee in full",
    "attack_ceiling": "No attack at all can recognise more than",
    "target": "Promised",
    "resolution_cap": "A perfect attack would have shown",
    "assumes": "Takes for granted",
    "text_epsilon": "Epsilon of one text of a user",
    "delta": "Delta (chance that the promise fails)",
    "unit": "Protects",
    "adjacency": "Against a change by",
    "sampler": "How texts were drawn",
    "sample_rate": "Share of texts in a step",
    "steps": "Training steps",
    "sigma": "Noise (multiple of the largest contribution)",
    "accountant": "Accounting method",
    "minimum_detectable_effect": "Smallest effect this test could see",
    "margin": "Margin of the verdict",
    "reason": "Why there is no verdict",
    "notes": "Notes",
}

MARKS = {Tone.GOOD: "✓", Tone.BAD: "✕", Tone.UNKNOWN: "?", Tone.NEUTRAL: "–"}

GLOSSARY = {
    "AUC": "Area under the ROC curve: the chance that an attack ranks a training text above an outside text. 50% is a "
    "coin toss, 100% is certainty.",
    "Canary": "A made-up secret that is planted in the training data so that its escape can be measured without "
    "harming anybody.",
    "Delta": "A small probability with which the epsilon promise is allowed to fail. It should be far below one in the "
    "number of people.",
    "Differential privacy": "Training with noise, such that the model would be almost the same had any one person's "
    "data been left out.",
    "Epsilon": "The size of a differential-privacy promise. Smaller is stronger; 0 would mean that nothing can be "
    "learned.",
    "Exposure": "How many times an attacker's guesses are halved by having the model, in bits.",
    "F1": "A score between 0% and 100% that balances what is missed and what is marked wrongly.",
    "False alarm (FPR)": "The share of outside texts that an attack wrongly says were in the training data.",
    "Interval": "The range in which the true figure is believed to lie. Made in this way, 95 of 100 such ranges "
    "contain it.",
    "Membership inference": "An attack that tells whether a text was used for training.",
    "Minimum detectable effect": "The smallest real difference that the test would probably have noticed. A larger "
    "test set makes it smaller.",
    "n": "How many independent texts (or people, or secrets) a figure rests on.",
    "Regime": "The way in which a model was trained: plain, or private, for instance.",
    "ROC": "A curve of the texts an attack recognises against the false alarms it raises.",
    "True positives (TPR)": "The share of training texts that an attack recognises.",
}

LIMITS = (
    "Attacks give lower bounds. That an attack of this report fails does not show that a better one would; only the "
    "privacy budget speaks for all attacks.",
    "The budget covers the training examined here. It does not cover choices made by looking at the data elsewhere, "
    "other models trained on the same data, or people who appear in more units than the guarantee protects.",
    "Figures hold for the texts of this corpus. Other users, languages or times may differ.",
    "Groups are those that the corpus names. Groups that it does not name, and people in several groups at once, were "
    "not examined.",
    "Each interval stands for itself. Among many figures, about 1 in 20 intervals misses its true value by chance.",
    "“No leak found” and “fair within margin” are statements about this test and its size, not certificates.",
)


def explain(id: str) -> Explanation | None:
    """The explanation of a finding id, or None where the table has none."""
    return next((entry for entry in EXPLANATIONS if fnmatchcase(id, entry.id)), None)


def figure(finding: Finding, value: float | None) -> str:
    """`value` in the finding's unit; epsilon is its own unit and carries no word."""
    return finding.figure(value).removesuffix(" epsilon")


def sentence(finding: Finding) -> str:
    """The finding as one sentence."""
    if finding.value is None:
        return "Could not be measured here."
    entry = explain(finding.id)
    shown = figure(finding, finding.value)
    return entry.says.format(value=shown) if entry else f"{finding.title}: {shown}."


def certainty(finding: Finding) -> str:
    """How sure we are of a finding, in words."""
    count = f", from n\u00a0=\u00a0{finding.n:,}" if finding.n is not None else ""
    if finding.value is None:
        return f"Too little data to say anything{count}."
    entry = explain(finding.id)
    if finding.low is None and finding.high is None:
        return entry.certainty if entry and entry.certainty else f"No interval is recorded{count}."
    ends = (figure(finding, finding.low), figure(finding, finding.high))
    words = f"{100 * finding.level:g}% interval {ends[0]} to {ends[1]}{count}."
    return words + (" Too wide for a verdict." if finding.verdict is Verdict.INSUFFICIENT_EVIDENCE else "")


def good(finding: Finding) -> str:
    """What a good figure would be."""
    entry = explain(finding.id)
    if entry:
        return entry.good
    ideal = f" The ideal is {figure(finding, finding.ideal)}." if finding.ideal is not None else ""
    direction = "" if finding.direction is Direction.NONE else f"{finding.direction.value.capitalize()}."
    return (direction + ideal).strip() or "This figure describes; it has no better or worse."
