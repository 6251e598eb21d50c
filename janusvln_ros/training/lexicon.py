"""
Words that a navigator should know whatever their frequency in English, the likeliest first: those
of almost every direction, others of many and of some directions, and those for what stands in
homes. They belong to the vocabulary of a small network and are what a mistyped word most likely
was (`janusvln_ros.training.words`).
"""

# ruff: noqa: SIM905

ESSENTIAL = tuple(
    """
the and of your into left right turn go walk stop door room hallway there red blue green
""".split()
)

CORE = tuple(
    """
a to on in at you it is that through then move head wait halt doorway hall corridor past pass
next first second third last straight ahead forward around behind front side until when where
see with from out up by end take leave enter exit follow keep going continue start started back
across between beside near toward towards walls wall thing one not don't lamp table chair sofa
couch bed box shelf cabinet wardrobe fridge clock column barrel plant yellow orange purple pink
brown black white grey turquoise colour
""".split()
)

DIRECTIONS = tuple(
    """
an this these those its ones other another each every both all any no i yours here while till
before after or but so fourth fifth sixth final finally again once twice onto without along over
under above below besides beyond nearest close closest adjacent opposite facing against inside
outside within off down away if too also just only are be has have do doesn't can can't cannot
could will would should must let let's need want like please thanks thank hello hey now ok okay
yes goes gone walks walking moves moving heads heading proceed keeps keeping takes taking turns
turning rotate spin face make makes making get gets getting come comes coming enters entering
leaves leaving cross crossing passes passing stops stopping waits waiting stand stay remain find
look looking seeing reach reaching return starting begin ends ending arrive step steps forwards
sides hand middle center centre corner edge far further furthest farthest way path direction
half quarter full about degrees metre metres meter meters feet foot doors doorways opening
entrance entry rooms passage floor ceiling window place spot things object objects item items
something anything nothing lamps light lights closet shelves bookcase refrigerator pillar
cupboard tables desk chairs boxes crate gray teal dark color coloured colored same different big
small large little tall short long wide narrow low high kitchen bedroom bathroom office
immediately directly slightly slowly quickly carefully almost halfway instead avoid ignore skip
miss me we us them what which whose how for as via very more much may might soon still somewhere
i'm i'd i'll it's that's there's you'll you're you've you'd we're isn't won't mustn't kindly
simply basically hi cheers excuse sorry robot target goal destination task approach aim visit
locate search seek pick choose use using used catch hit meet pull pop slip cut hang notice
glimpse sight listen mind began begins came entered passed opened opens open leads leading
stands standing sits hangs marks matches containing having got gotta gonna wanna thru round rear
bottom top length area space chamber single sole sharp bit lot kind easy luck midst flanked
framed painted walled tucked upright easily gently sharply smoothly careful ready roughly
approximately oh ah uh um eh hm hmm ha yo mr he she they him her per etc am pm cm ft km
""".split()
)

HOME = tuple(
    """
settee divan loveseat futon recliner armchair rocker stool barstool footstool ottoman pouf
pouffe hassock bench pew chesterfield chaise lounger beanbag sectional sideboard credenza buffet
hutch armoire dresser bureau chiffonier nightstand commode vanity bookshelf bookrack shelving
rack pantry larder locker cubby console workbench worktop countertop counter island escritoire
lectern podium pedestal plinth easel bunk cot crib cradle hammock mattress bedstead headboard
pillow cushion duvet quilt blanket bedspread lantern luminaire chandelier sconce floorlamp
torchiere candle candlestick candelabra bulb spotlight icebox freezer stove cooker hob oven
microwave dishwasher washer dryer kettle toaster blender sink basin washbasin faucet tap bathtub
bath shower toilet lavatory urinal bidet towel radiator heater boiler furnace fireplace hearth
mantel mantelpiece chimney vent fan hoover vacuum broom mop bucket pail bin trashcan wastebasket
dustbin keg cask vat tub drum tank cylinder canister jar jug urn vase pot planter flowerpot
carton chest trunk coffer casket case suitcase hamper basket package parcel container bag sack
backpack post pole pier pilaster support beam joist arch archway pylon bollard cone pyramid cube
cuboid block brick sphere globe orb ball disc disk ring ladder houseplant fern shrub bush cactus
ficus palm bonsai flower bouquet tree potted timepiece watch timer alarm grandfather pendulum
mirror painting picture poster portrait print artwork sculpture statue bust figurine trophy
tapestry curtain drape drapes blind blinds shutter windowsill sill pane rug carpet mat doormat
runner tile tiles parquet linoleum floorboard partition screen divider panel doorframe entryway
entranceway gate gateway hatch threshold porch portal passageway foyer lobby vestibule aisle
walkway landing stairwell staircase stairway stairs banister railing elevator lift escalator
kitchenette lounge livingroom parlour parlor den study library nursery playroom diningroom
conservatory sunroom attic loft basement cellar garage utility laundry storeroom cloakroom
washroom restroom ensuite alcove nook recess niche bay balcony terrace patio veranda deck
television tv telly monitor laptop computer printer telephone piano guitar speaker stereo
scarlet crimson maroon burgundy vermilion ruby cherry rust reddish azure cobalt navy indigo
sapphire cerulean bluish cyan aqua aquamarine emerald olive lime jade mint khaki greenish lemon
amber mustard golden gold yellowish violet lilac lavender mauve plum magenta fuchsia purplish
tangerine apricot peach coral salmon rose pinkish ivory cream beige ecru pale whitish ebony jet
charcoal blackish silver greyish grayish slate chestnut tan bronze copper brownish chocolate
walnut mahogany hazel colourful bright dim striped wooden metallic metal leather fabric glass
plastic advance march stroll wander amble trot travel carry hike stride saunter roll drive pivot
swing swivel veer bear steer twist pause rest finish park standstill bypass skirt traverse
circle squeeze depart vacate quit reenter retreat backtrack reverse retrace onward onwards
backwards backward sideways leftward rightward leftwards rightwards clockwise counterclockwise
anticlockwise nearby alongside adjoining neighbouring neighboring leftmost rightmost midway
afterwards afterward subsequently thereafter unless lampshade tabletop tableware workstation
jacuzzi loo wc hanger stepladder stepstool washstand hatstand coatrack coatstand bookstand
bookends pianoforte washing dining coffee coat hat clothes machine unit drawers drawer reading
writing fire book books bar barstools aquarium fishbowl terrarium cage birdcage umbrella ironing
telescope harp cello violin drums organ keyboard gramophone jukebox record radio sofabed daybed
trundle playpen highchair treadmill dumbbell bicycle bike pram buggy skateboard scooter toy toys
doll teddy dollhouse cushioned upholstered padded wicker rattan bamboo wallpaper baseboard
skirting doorknob doorstep doorbell handrail peephole switch socket plug outlet thermostat
detector extinguisher intercom safe cloak rail shoe shoes racks holder bottle bottles cup cups
mug plate plates bowl bowls dish dishes pots pan pans cutlery fruit square rectangular circular
oval cylindrical boxy triangular spherical shiny glossy matte dotted checkered checked plaid
patterned tiled carpeted panelled paneled lit unlit sunlit brightly dimly cluttered messy tidy
empty spacious roomy cramped skinny slim thin thick stout squat lofty towering sizeable sizable
tiny massive rosy snowy sandy smoky coppery lemony sky royal pure deep pastel neon scullery
laundrette workshop workroom workspace cubicle mudroom boxroom bathhouse dressing guestroom
guest master family sitting drawing living bedsit studio hallways gap entries
""".split()
)
