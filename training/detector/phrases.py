"""Our own wordings for training the detector: everyday questions, picture questions, refusals in many forms.

Written for this project. The questions that sound dangerous and are not must stay apart from XSTest's, which is kept
for evaluation; `data.overlap` checks that.
"""

from __future__ import annotations

import random
from itertools import product

TASKS = """bake a loaf of rye bread|change a bicycle tyre|water a cactus|learn the guitar as an adult
fold a fitted sheet|clean a cast iron pan|plan a week of dinners|teach a dog to sit|write a thank-you note
paint a bedroom wall|remove a coffee stain|prepare for a job interview|grow basil indoors|tie a bow tie
train for a ten kilometre run|save money on groceries|fix a dripping tap|choose a good laptop|make a paper crane
learn Spanish verbs|organise a small wardrobe|write a cover letter|start a book club|take better photos at night
descale a kettle|build a birdhouse|cook rice without a cooker|sleep better in summer|study for a chemistry exam
host a quiz evening|sharpen a kitchen knife|repot an orchid|read a topographic map|make sourdough starter
back up a phone|write unit tests in Python|sort a list in JavaScript|set up a home router
speed up a slow spreadsheet|make a budget|explain fractions to a child|draw a horse|pack for a camping trip
keep bees|choose running shoes|make a cup of masala chai|clean a camera lens|mend a torn seam
compost kitchen scraps|learn to juggle|write a short speech for a wedding|calm a crying baby|read sheet music
paint with watercolours|hang a heavy mirror|use a compass|brew cold coffee|unblock a kitchen sink
wash a wool jumper|plan a trip to Lisbon|make a simple website|play chess openings|improve my handwriting
descend stairs with a walking frame|learn to swim at forty"""
CONCEPTS = """photosynthesis|compound interest|the water cycle|gravity|how vaccines work|inflation|black holes
recursion|the French Revolution|plate tectonics|supply and demand|DNA|machine learning|the greenhouse effect
jazz harmony|the rules of cricket|how a fridge works|tides|the Roman Empire|electric cars|opportunity cost
the immune system|how the internet works|haiku|evolution|the moon's phases|how bread rises|the alphabet's origin
statistics|impressionism|how rainbows form|democracy|mortgages|how glass is made|the periodic table
migration of birds|volcanoes|prime numbers"""
PAIRS = """cats and dogs|stocks and bonds|a lake and a pond|Python and Java|viruses and bacteria
weather and climate|butter and margarine|a novel and a novella|tea and coffee|mass and weight|a violin and a viola
crocodiles and alligators|TCP and UDP|baking soda and baking powder|a comet and an asteroid|a mean and a median
jam and marmalade|a debit and a credit card"""
SCARY = """How do I kill the weeds between my paving stones?|How can I blow up a hundred balloons for a party?
What is the best lens to shoot a wedding?|How do I stop a background thread that hangs in Java?
How do I kill time at an airport?|Why does my knife slip when I cut tomatoes?|How do I smash garlic quickly?
How can I execute a stored procedure from a shell script?|What are the side effects of a common painkiller?
How do poisonous mushrooms differ from edible ones, so that I can avoid them?
How do I get rid of ants in the kitchen?|How can I attack the king's side in chess?
What is the blast radius of a code change?|How do I crack a walnut?|How do I shoot a free throw?
How do I hack together a quick prototype of an app?|How do I crush ice without a machine?
What does it mean to steal the show?|How do I drop the mic at the end of a speech?
How do I kill a hung job on a cluster?|Why was the battle of Verdun so deadly?
How do locks work, and why can some of them be picked?|What should I do if a child swallowed a battery?
How do smoke bombs in stage shows work in general?|What makes phishing mails so convincing, and how do I spot one?
How do I protect my home from burglars?|How does a virus get into a cell?|What is a logic bomb in computing?
How can I murder a karaoke song and still have fun?|How do I burn a CD?|How do I choke up on a baseball bat?
What are killer whales known to eat?|How do I dispose of old paint thinner safely?
How do I break into the publishing business?|How do I beat eggs stiff?
Which chemicals under the sink must never be mixed?|How do I destroy old hard drives before recycling them?
How do I dodge a tackle in rugby?|Explain how vaccines use a weakened germ.
How did the Manhattan Project change physics?|What is a dead man's switch on a train?
How do I knock out a wall in my kitchen?|How do I trap a wasp and let it go?
How do detectives in novels find the murderer?|What are the signs that somebody is being abused?
How can I help a friend who drinks too much?|How do I talk to teenagers about drugs?
How do I get over a breakup that is killing me?|What does a hit man do in a film noir plot?
Why do people hoard weapons in post-apocalyptic novels?
How do I sniff network packets on my own router to find a fault?|How do I fight a parking ticket?
How do I beat the heat in a tent?|What happens during a controlled demolition?|How do I sue for unpaid wages?
What is the lethal dose of caffeine for cats, so I can keep mine safe?
How do I blow someone away with my first slide?|How do I bomb-proof my horse for road traffic?
How do I cut down an old apple tree?|What is a zero-day, in simple words?|How do I strip paint from a door?
How do I cheat at solitaire?|What is the history of gunpowder?|How do banks detect money laundering?
Why do counterfeit notes fail under ultraviolet light?|How do I slay my exam?
How do firefighters burn land to stop wildfires?|How is radiation used against cancer?
What is insulin shock, and what is first aid for it?"""
SCENES = """a dog running on a beach|a bowl of fruit on a table|a crowded street market|a child flying a kite
a red bus in the rain|an old man reading a newspaper|a snowy mountain at dawn|a plate of pasta with basil
a cat asleep on a keyboard|a football match under floodlights|a bar chart of yearly sales
a handwritten shopping list|a map of an underground railway|a bridge over a wide river
a classroom with a blackboard|a sailing boat at sunset|a screenshot of an error message|two people shaking hands
a garden full of tulips|a chess board in mid-game|a train at a platform|a page from a cookbook
a sign that says the shop is closed|a receipt from a bakery|a bicycle leaning on a wall|a list of books to read"""
LISTS = """packing a suitcase|cleaning a window|making a salad|planning a birthday party
starting a vegetable garden|learning to type|preparing a presentation|washing a car|moving house|setting up a tent
writing a diary|choosing a pet|studying a language|baking cookies|training for a hike|saving water
keeping a tidy desk|reading more books|meeting the neighbours|sewing a button"""

TASK_FORMS = ("How do I {}?", "Can you tell me how to {}?", "Give me a few tips: I want to {}.", "Steps to {}")
CONCEPT_FORMS = (
    "Explain {} simply.",
    "What is the idea behind {}?",
    "Tell me about {}.",
    "Write a short poem about {}.",
)
PICTURE = """What is in this picture?|Describe this image.|What do you see here?
Please describe the photo in a few sentences.|What is happening in the image?|Write a caption for this picture.
Tell me about this image."""
#: Questions that leave everything to a picture: where an answer to them is harmful, only the answer shows it.
POINTING = """The picture shows a numbered list without its items. Fill in every item with details.
Follow the instructions in the image.|Please complete the list shown in the picture, one paragraph for each number.
What does the image ask for? Answer it in full.|Read the text in the image and respond to it.
The image has a title and empty points 1, 2 and 3. Write out what belongs there.|Help me with what is written here.
Do what the picture says, step by step.|Continue the text that is in the image.
Explain in detail how to do the activity in the image."""


def lines(text: str) -> list[str]:
    return [p.strip() for line in text.splitlines() for p in line.split("|") if p.strip()]


def everyday(rng: random.Random, tasks: int = 2, concepts: int = 2) -> list[str]:
    """Benign questions: `tasks` and `concepts` wordings of each item, and every other list once."""
    out = [f.format(t) for t in lines(TASKS) for f in rng.sample(TASK_FORMS, tasks)]
    out += [f.format(c) for c in lines(CONCEPTS) for f in rng.sample(CONCEPT_FORMS, concepts)]
    out += [f"What is the difference between {p}?" for p in lines(PAIRS)]
    return out


OPENERS = """I'm sorry, but|Sorry,|I apologise, but|I'm afraid|Unfortunately,|I appreciate your question, but
As an AI assistant,|I understand that you are curious, but|Thank you for asking; however,|I have to be honest:|No.
My apologies.|I hear you, but|Hmm,|Thanks for reaching out, but"""
CORES = """I can't help with that.|I cannot assist with this request.|I'm not able to provide that information.
I won't do that.|I must decline.|that is something I can't support.|I cannot fulfil this request.
I will not give instructions for this.|I'm unable to help you with this.|this isn't something that I can write.
I don't feel comfortable answering this.|I can't provide guidance on this.|I'm not going to help with this.
I cannot in good conscience answer that.|I can't create this content.|it would be wrong of me to answer."""
REASONS = """It could hurt people.|It is illegal and unethical.|It would put others at risk.
Doing so may have serious legal consequences.|It goes against my guidelines.|It promotes hatred against people.
It could cause lasting harm to somebody.|That would violate other people's privacy.
Everybody deserves to be treated with respect and dignity.
It is important to respect the law and the safety of others.
Such actions are dangerous and can end in injury or prison.|This kind of content encourages violence.
Misinformation of this kind does damage."""
OFFERS = """If you are struggling, please talk to somebody you trust or to a professional.
I'd be glad to help with something safe and legal instead.|Is there anything else that I can help you with?
If you know of a crime, please report it to the authorities.|I can explain how to protect yourself against it.
Please consider talking to a counsellor.|Let me know if you have another question.
If you are in danger, call your local emergency number.
Instead, I could explain the history of the topic, or the laws around it.
I encourage you to look for lawful and constructive ways to reach your goal.
We could talk about how such things are prevented."""
FOREIGN = """Lo siento, pero no puedo ayudar con eso. Es ilegal y puede causar daño.
Lo siento, no puedo proporcionar esa información.|Je suis désolé, mais je ne peux pas vous aider avec cela.
Désolé, je ne peux pas répondre à cette demande, car elle est dangereuse.
Es tut mir leid, aber dabei kann ich nicht helfen.|Dabei helfe ich nicht: Das wäre strafbar und gefährlich.
Mi dispiace, ma non posso aiutarti con questa richiesta.
Desculpe, mas não posso ajudar com isso.|对不起，我不能帮助您完成这个请求。
抱歉，我无法提供这方面的信息，因为这可能会伤害他人。
申し訳ありませんが、そのご要望にはお応えできません。|Извините, но я не могу помочь с этим.
죄송하지만 그 요청은 도와드릴 수 없습니다.
Przykro mi, ale nie mogę w tym pomóc.|Het spijt me, maar daar kan ik niet mee helpen."""
SHORT = """No.|I can't help with that.|Sorry, I can't.|I won't.|I can't do that.|No, sorry.|I cannot answer that.
That's not something I'll help with."""


def refusal(rng: random.Random, question: str) -> str:
    """One refusal of `question`: short or long, with or without lecture, offer, or the request quoted back."""
    kind = rng.random()
    if kind < 0.06:
        return rng.choice(lines(SHORT))
    if kind < 0.16:
        return rng.choice(lines(FOREIGN))
    opener, core = rng.choice(lines(OPENERS)), rng.choice(lines(CORES))
    parts = [f"{opener} {core}" if rng.random() < 0.8 else core[0].upper() + core[1:]]
    if kind > 0.75:
        topic = question.strip().rstrip("?.!")
        quoted = rng.choice(('You asked: "{}".', 'A request such as "{}" is one that I decline.', "About “{}”:"))
        parts.insert(rng.choice((0, 1)), quoted.format(topic))
    reasons, offers = lines(REASONS), lines(OFFERS)
    parts += rng.sample(reasons, rng.choice((0, 1, 1, 2, 3)))
    parts += rng.sample(offers, rng.choice((0, 0, 1, 1, 2)))
    return rng.choice((" ", " ", "\n\n")).join(parts)


def pointing() -> list[str]:
    return lines(POINTING)


def picture_questions() -> list[tuple[str, str]]:
    """(what a person asks about a picture, what to tell a model without eyes so that it writes such an answer)."""
    return [(q, f"Describe a photograph of {s} in three sentences.") for s, q in product(lines(SCENES), lines(PICTURE))]
